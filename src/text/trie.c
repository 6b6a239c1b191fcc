#include "text/trie.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/vocabulary.h"

void pal__trie_free(pal__trie *t)
{
	if (!t)
		return;
	pal__free(t->nodes);
	pal__free(t->ids);
	pal__free(t);
}

static int by_bytes(const void *a, const void *b, void *tokenizer)
{
	pal__str x = pal__token_bytes(tokenizer, *(const int32_t *)a);
	pal__str y = pal__token_bytes(tokenizer, *(const int32_t *)b);
	int order = memcmp(x.s, y.s, x.n < y.n ? x.n : y.n);
	return order                                       ? order
	       : x.n != y.n                                ? (x.n < y.n ? -1 : 1)
	       : *(const int32_t *)a < *(const int32_t *)b ? -1
							   : 1;
}

static size_t common(pal__str a, pal__str b)
{
	size_t n = 0;
	while (n < a.n && n < b.n && a.s[n] == b.s[n])
		n++;
	return n;
}

static size_t count_nodes(const pal__tokenizer *t, const pal__trie *trie)
{
	size_t n = 0;
	pal__str before = {0};
	for (size_t i = 0; i < trie->n_ids; i++) {
		pal__str s = pal__token_bytes(t, trie->ids[i]);
		n += s.n - common(before, s);
		before = s;
	}
	return n;
}

static void fill_nodes(const pal__tokenizer *t, pal__trie *trie)
{
	uint32_t open[PAL__TRIE_DEEP]; /* nodes of the token before */
	pal__str before = {0};
	for (size_t i = 0; i < trie->n_ids; i++) {
		pal__str s = pal__token_bytes(t, trie->ids[i]);
		size_t same = common(before, s);
		for (size_t k = same; k < before.n; k++)
			trie->nodes[open[k]].skip = trie->n;
		for (size_t k = same; k < s.n; k++) {
			open[k] = trie->n;
			trie->nodes[trie->n++] =
				(pal__trie_node){0, (uint32_t)i, (uint8_t)s.s[k], (uint8_t)(k + 1)};
		}
		trie->bytes[(uint8_t)s.s[0]] |= s.n == 1;
		before = s;
	}
	for (size_t k = 0; k < before.n; k++)
		trie->nodes[open[k]].skip = trie->n;
	trie->nodes[trie->n] = (pal__trie_node){trie->n, (uint32_t)trie->n_ids, 0, 0};
}

static pal__trie *make(const pal__tokenizer *t)
{
	pal__trie *trie = pal__calloc(1, sizeof *trie);
	size_t n = pal__tokenizer_n_tokens(t);
	if (!trie || !(trie->ids = pal__calloc(n, sizeof *trie->ids)))
		goto fail;
	for (size_t i = 0; i < n; i++) {
		pal__str s = pal__token_bytes(t, (int32_t)i);
		if (s.n && s.n <= PAL__TRIE_DEEP && !pal__token_is_special(t, (int32_t)i) &&
		    !pal__token_is_end(t, (int32_t)i))
			trie->ids[trie->n_ids++] = (int32_t)i;
	}
	qsort_r(trie->ids, trie->n_ids, sizeof *trie->ids, by_bytes, (void *)t);
	trie->nodes = pal__calloc(count_nodes(t, trie) + 1, sizeof *trie->nodes);
	if (!trie->nodes)
		goto fail;
	fill_nodes(t, trie);
	return trie;
fail:
	pal__trie_free(trie);
	return NULL;
}

pal_status pal__tokenizer_trie(const pal__tokenizer *t, const pal__trie **out, pal_error *err)
{
	_Atomic(struct pal__trie *) *place = &((pal__tokenizer *)t)->trie;
	pal__trie *trie = atomic_load(place), *none = NULL;
	if (!trie) {
		trie = make(t);
		if (!trie)
			return pal__fail_memory(err, "a vocabulary's trie",
						pal__tokenizer_n_tokens(t) * sizeof(int32_t));
		if (!atomic_compare_exchange_strong(place, &none, trie)) {
			pal__trie_free(trie); /* another thread was faster */
			trie = none;
		}
	}
	*out = trie;
	return PAL_OK;
}
