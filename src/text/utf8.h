/* UTF-8: what is a character, and what may still become one.
 *
 * Valid means RFC 3629: shortest form, no surrogates, at most U+10FFFF.
 */
#ifndef PAL_TEXT_UTF8_H
#define PAL_TEXT_UTF8_H

#include <stddef.h>

/* The character that s[n], n > 0, starts with: its 1 to 4 bytes, or 0 when no more
 * bytes can make one of it, or -1 when s[n] is a part of a character. */
int pal__utf8_char(const char *s, size_t n);

/* Bytes of s[n] before the first that no valid character holds (n: all valid). */
size_t pal__utf8_valid(const char *s, size_t n);

/* Bytes of s[n] before the next valid character. */
size_t pal__utf8_invalid(const char *s, size_t n);

#endif
