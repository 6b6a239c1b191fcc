/* Streaming detokenization (pal__detok in tokenizer.h). */
#include <string.h>

#include "text/utf8.h"
#include "text/vocabulary.h"

void pal__detok_init(pal__detok *d, const pal__tokenizer *t, bool keep_special)
{
	*d = (pal__detok){.t = t, .keep_special = keep_special, .at_start = true};
}

/* One byte more: a character that is whole now goes to out, and so does what can become
 * none. Returns the bytes written. What is held is always the start of a character. */
static size_t feed_byte(pal__detok *d, char byte, char *out)
{
	d->held[d->n_held++] = byte;
	int len = pal__utf8_char(d->held, d->n_held);
	if (len < 0)
		return 0;
	size_t n = len > 0 || d->n_held == 1 ? d->n_held : d->n_held - 1;
	memcpy(out, d->held, n);
	d->n_held -= (unsigned)n;
	/* the byte that broke a character may start one, or be one */
	return d->n_held ? (d->n_held = 0, n + feed_byte(d, byte, out + n)) : n;
}

bool pal__detok_feed(pal__detok *d, int32_t id, char *out, size_t cap, size_t *n_out)
{
	pal__str s = pal__token_bytes(d->t, id);
	if (pal__token_is_special(d->t, id) && !d->keep_special)
		s.n = 0;
	if (cap - *n_out < s.n + d->n_held)
		return false;
	if (d->at_start && s.n) {
		d->at_start = false;
		/* the dummy prefix */
		if (d->t->add_space_prefix && *s.s == ' ' && !pal__token_is_special(d->t, id)) {
			s.s++;
			s.n--;
		}
	}
	for (size_t i = 0; i < s.n; i++)
		*n_out += feed_byte(d, s.s[i], out + *n_out);
	return true;
}

size_t pal__detok_finish(pal__detok *d, char out[4])
{
	size_t n = d->n_held;
	memcpy(out, d->held, n);
	d->n_held = 0;
	return n;
}
