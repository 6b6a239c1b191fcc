#include "model/model.h"

#include <string.h>

#include "base/mem.h"
#include "base/topology.h"
#include "model/vocab.h"
#include "text/chat.h"
#include "text/constraint.h"

const pal__tokenizer *pal__model_tokenizer(const pal_model *m)
{
	return m->tokenizer;
}

static pal_status copy_texts(pal_model *m, const char *path, const pal__gguf *g, pal_error *err)
{
	pal__str name = {0}, chat = {0};
	pal_status s = pal__gguf_string(g, "general.name", false, &name, err);
	if (s == PAL_OK)
		s = pal__gguf_string(g, "tokenizer.chat_template", false, &chat, err);
	if (s != PAL_OK)
		return s;
	m->path = pal__strndup(path, strlen(path));
	m->name = pal__strndup(name.s ? name.s : "", name.n);
	if (!m->path || !m->name)
		return pal__fail_memory(err, "the model's name", name.n);
	m->has_chat_template = chat.n > 0;
	m->chat_family = chat.n ? pal__chat_detect(chat.s, chat.n) : NULL;
	return PAL_OK;
}

static pal_status start_threads(pal_model *m, int asked, pal_error *err)
{
	cpu_set_t allowed;
	pal__cpus_allowed(&allowed);
	pal__placement p = pal__place_threads("", &allowed, asked);
	return pal__pool_new(p.n_threads, &p.cpus, &m->pool, err);
}

static pal_status open_from(pal_model *m, const char *path, const pal_model_options *o,
			    const pal__gguf *g, pal_error *err)
{
	m->no_weights = o->no_weights;
	pal_status s = pal__kernels_choose(o->isa, &m->kernels, err);
	if (s == PAL_OK)
		s = copy_texts(m, path, g, err);
	if (s == PAL_OK)
		s = pal__vocab_from_gguf(g, &m->tokenizer, err);
	if (s == PAL_OK)
		s = pal__hparams_read(g, pal__tokenizer_n_tokens(m->tokenizer), &m->h, err);
	if (s == PAL_OK && !m->pool)
		s = start_threads(m, o->n_threads, err);
	if (s == PAL_OK)
		s = pal__weights_load(m, g, o, err);
	return s;
}

/* pool: another model's, or NULL: its own. */
static pal_status open_with(const char *path, const pal_model_options *o, pal__pool *pool,
			    pal_model **out, pal_error *err)
{
	pal__gguf g;
	pal_status s = pal__gguf_open(path, &g, err);
	if (s != PAL_OK)
		return s;
	pal_model *m = pal__calloc(1, sizeof *m);
	if (m) {
		m->pool = pool;
		m->shares_pool = pool != NULL;
		s = open_from(m, path, o, &g, err);
	} else {
		s = pal__fail_memory(err, "the model", sizeof *m);
	}
	/* What a shrunken file made of a value is not what the message should be about. */
	if (s != PAL_OK && pal__file_shrunk(&g.file))
		s = pal__gguf_shrunk(&g, err);
	pal__gguf_close(&g);
	if (s == PAL_OK)
		*out = m;
	else
		pal_model_close(m);
	return s;
}

pal_status pal_model_open(const char *path, const pal_model_options *options, pal_model **out,
			  pal_error *err)
{
	static const pal_model_options defaults = {0};
	const pal_model_options *o = options ? options : &defaults;
	if (o->n_threads < 0 || o->n_threads > PAL_MAX_THREADS)
		return pal__fail(err, PAL_EINVAL,
				 "%d threads: 1 to %d are possible, 0 is automatic", o->n_threads,
				 PAL_MAX_THREADS);
	return open_with(path, o, NULL, out, err);
}

pal_status pal__model_open_beside(const char *path, const pal_model *host, pal_model **out,
				  pal_error *err)
{
	return open_with(path, &(pal_model_options){.isa = host->kernels->name}, host->pool, out,
			 err);
}

void pal_model_close(pal_model *m)
{
	if (!m)
		return;
	pal__weights_free(m);
	if (!m->shares_pool)
		pal__pool_free(m->pool);
	pal__tokenizer_free(m->tokenizer);
	pal__free(m->cache_note);
	pal__free(m->name);
	pal__free(m->path);
	pal__free(m);
}

void pal_model_get_info(const pal_model *m, pal_model_info *out)
{
	const pal__hparams *h = &m->h;
	*out = (pal_model_info){
		.arch = h->arch_name,
		.name = m->name,
		.isa = m->kernels->name,
		.n_vocab = (int32_t)h->n_vocab,
		.n_layers = (int32_t)h->n_layers,
		.n_embd = (int32_t)h->n_embd,
		.n_heads = (int32_t)h->n_heads,
		.n_kv_heads = (int32_t)h->n_kv_heads,
		.head_dim = (int32_t)h->head_dim,
		.n_ff = (int32_t)h->n_ff,
		.n_ctx_train = h->n_ctx_train,
		.n_params = m->n_params,
		.weight_bytes = m->weight_bytes,
		.hash = m->hash,
		.n_threads = pal__pool_threads(m->pool),
		.from_cache = m->cached.data != NULL,
		.cache_note = m->cache_note,
	};
}

pal_status pal__model_intact(const pal_model *m, pal_error *err)
{
	if (!pal__file_torn(&m->cached.file))
		return PAL_OK;
	return pal__fail(err, PAL_EIO,
			 "%s: the file that its tiles are mapped from became shorter: open the "
			 "model again",
			 m->path);
}

/* --- text: the tokenizer's functions with a model in front --------------------- */

pal_status pal_tokenize(const pal_model *m, const char *text, size_t n, unsigned flags,
			int32_t **ids, size_t *n_ids, pal_error *err)
{
	return pal__tokenize(m->tokenizer, text, n, flags, ids, n_ids, err);
}

static bool valid_id(const pal_model *m, int32_t id)
{
	return id >= 0 && (size_t)id < m->h.n_vocab;
}

static pal_status check_id(const pal_model *m, int32_t id, pal_error *err)
{
	return valid_id(m, id) ? PAL_OK
			       : pal__fail(err, PAL_EINVAL, "token %d: ids are 0 to %zu", id,
					   m->h.n_vocab - 1);
}

pal_status pal_token_bytes(const pal_model *m, int32_t id, const char **bytes, size_t *n,
			   pal_error *err)
{
	pal_status s = check_id(m, id, err);
	if (s != PAL_OK)
		return s;
	pal__str str = pal__token_bytes(m->tokenizer, id);
	*bytes = str.s;
	*n = str.n;
	return PAL_OK;
}

pal_status pal_detokenize(const pal_model *m, const int32_t *ids, size_t n_ids, unsigned flags,
			  char **text, size_t *n_text, pal_error *err)
{
	size_t cap = 8, n = 0; /* held bytes, and the NUL */
	for (size_t i = 0; i < n_ids; i++) {
		pal_status s = check_id(m, ids[i], err);
		if (s != PAL_OK)
			return s;
		cap += pal__token_bytes(m->tokenizer, ids[i]).n + 4;
	}
	char *out = pal__alloc(cap);
	if (!out)
		return pal__fail_memory(err, "the text", cap);
	pal__detok d;
	pal__detok_init(&d, m->tokenizer, flags & PAL_TOKENIZE_SPECIAL);
	for (size_t i = 0; i < n_ids; i++)
		pal__detok_feed(&d, ids[i], out, cap, &n);
	char held[4];
	size_t n_held = pal__detok_finish(&d, held);
	memcpy(out + n, held, n_held);
	out[n + n_held] = 0;
	*text = out;
	*n_text = n + n_held;
	return PAL_OK;
}

bool pal_token_is_end(const pal_model *m, int32_t id)
{
	return valid_id(m, id) && pal__token_is_end(m->tokenizer, id);
}

/* The template's name, and the text of the model's first token; NULL: a failure. */
static const char *template_of(const pal_model *m, const char *template_name, char bos[64],
			       pal_error *err)
{
	const char *name = template_name ? template_name : m->chat_family;
	int32_t id = pal__tokenizer_bos(m->tokenizer);
	memset(bos, 0, 64);
	if (!name)
		pal__fail(err, PAL_EUNSUPPORTED, "%s: %s; choose one with --template (%s)", m->path,
			  m->has_chat_template ? "its tokenizer.chat_template is of no known family"
					       : "it has no tokenizer.chat_template",
			  pal__chat_names());
	if (id >= 0) {
		pal__str s = pal__token_bytes(m->tokenizer, id);
		if (s.n < 64)
			memcpy(bos, s.s, s.n);
	}
	return name;
}

pal_status pal_chat_format(const pal_model *m, const char *template_name,
			   const pal_message *messages, size_t n_messages, bool open_reply,
			   pal_thinking thinking, char **text, size_t *n_text, pal_error *err)
{
	char bos[64];
	const char *name = template_of(m, template_name, bos, err);
	return name ? pal__chat_format(name, bos, messages, n_messages, open_reply, thinking, text,
				       n_text, err)
		    : PAL_EUNSUPPORTED;
}

pal_status pal_chat_tokens(const pal_model *m, const char *template_name,
			   const pal_message *messages, size_t n_messages, bool open_reply,
			   pal_thinking thinking, int32_t **ids, size_t *n_ids, pal_error *err)
{
	char bos[64];
	pal__chat_text text = {0};
	const char *name = template_of(m, template_name, bos, err);
	if (!name)
		return PAL_EUNSUPPORTED;
	pal_status s =
		pal__chat_write(name, bos, messages, n_messages, open_reply, thinking, &text, err);
	if (!s)
		s = pal__tokenize_mixed(m->tokenizer, text.s, text.n, text.plain, text.n_plain,
					PAL_TOKENIZE_SPECIAL, ids, n_ids, err);
	pal__chat_text_free(&text);
	return s;
}

void pal_free(void *p)
{
	pal__free(p);
}

pal_status pal_constraint_json(const pal_model *m, const char *schema, size_t n,
			       pal_constraint **out, pal_error *err)
{
	return pal__constraint_json(m->tokenizer, schema, n, out, err);
}
