#include "text/utf8.h"

#include <stdint.h>
#include <string.h>

/* How many bytes a character with this first byte has, and the range of its second
 * byte, which is where overlong forms, surrogates and too large values show. */
static int lead(uint8_t b, uint8_t *low, uint8_t *high)
{
	*low = 0x80;
	*high = 0xbf;
	if (b < 0x80)
		return 1;
	if (b < 0xc2 || b > 0xf4)
		return 0;
	if (b < 0xe0)
		return 2;
	if (b == 0xe0)
		*low = 0xa0;
	else if (b == 0xed)
		*high = 0x9f;
	else if (b == 0xf0)
		*low = 0x90;
	else if (b == 0xf4)
		*high = 0x8f;
	return b < 0xf0 ? 3 : 4;
}

int pal__utf8_char(const char *s, size_t n)
{
	const uint8_t *u = (const uint8_t *)s;
	uint8_t low, high;
	int len = lead(u[0], &low, &high);
	if (len > 1 && n > 1 && (u[1] < low || u[1] > high))
		return 0;
	for (int i = 2; i < len && (size_t)i < n; i++)
		if ((u[i] & 0xc0) != 0x80)
			return 0;
	return (size_t)len > n ? -1 : len;
}

size_t pal__utf8_valid(const char *s, size_t n)
{
	size_t i = 0;
	while (i < n) {
		uint64_t eight;
		while (n - i >= 8 && (memcpy(&eight, s + i, 8), !(eight & 0x8080808080808080u)))
			i += 8;
		if (i == n)
			break;
		int len = pal__utf8_char(s + i, n - i);
		if (len <= 0)
			break;
		i += (size_t)len;
	}
	return i;
}

size_t pal__utf8_invalid(const char *s, size_t n)
{
	size_t i = 0;
	while (i < n && pal__utf8_char(s + i, n - i) <= 0)
		i++;
	return i;
}
