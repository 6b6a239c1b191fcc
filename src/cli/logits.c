/* pal logits: token ids to the logits of every position. */
#include "base/checked.h"
#include "base/mem.h"
#include "cli/command.h"
#include "cli/engine.h"
#include "cli/input.h"
#include "cli/output.h"

#define PIECE_BYTES                                                                  \
	((size_t)64 << 20) /* of logits held at a time, unless --batch asks for more \
			    */

static pal__engine engine = PAL__ENGINE_DEFAULTS;

static const pal__option options[] = {
	PAL__OPTION_THREADS(engine),   PAL__OPTION_BATCH(engine),   PAL__OPTION_ISA(engine),
	PAL__OPTION_CACHE_DIR(engine), PAL__OPTION_KV_TYPE(engine), PAL__OPTION_QUIET(engine),
	PAL__NO_MORE_OPTIONS,
};

/* Rows of one piece: what --batch says, so that batches of that size do happen. */
static size_t piece_rows(size_t n_vocab)
{
	size_t rows = PIECE_BYTES / (n_vocab * sizeof(float));
	if (engine.batch)
		return (size_t)engine.batch;
	return rows < 1 ? 1 : rows > PAL_MAX_BATCH ? PAL_MAX_BATCH : rows;
}

static pal_status write_pieces(pal_session *s, const int32_t *ids, size_t n, size_t n_vocab,
			       float *rows, size_t n_rows, pal_error *err)
{
	pal__bar bar;
	pal_status status = PAL_OK;
	pal__bar_start(&bar, "computing", "tok", engine.quiet);
	for (size_t i = 0; i < n && !status; i += n_rows) {
		size_t m = n - i < n_rows ? n - i : n_rows;
		status = pal_session_append(s, ids + i, m, rows, NULL, NULL, err);
		if (!status)
			status = pal__out_write(rows, m * n_vocab * sizeof *rows, err);
		pal__bar_update(&bar, i + m, n);
	}
	pal__bar_end(&bar);
	return status;
}

static pal_status write_logits(pal_session *s, const int32_t *ids, size_t n, size_t n_vocab,
			       pal_error *err)
{
	size_t n_rows = piece_rows(n_vocab), bytes;
	n_rows = n < n_rows ? n : n_rows;
	if (!pal__mul_size(n_rows, n_vocab * sizeof(float), &bytes))
		return pal__fail_memory(err, "logits", SIZE_MAX);
	float *rows = pal__alloc(bytes);
	if (!rows)
		return pal__fail_memory(err, "logits", bytes);
	pal_status status = write_pieces(s, ids, n, n_vocab, rows, n_rows, err);
	pal__free(rows);
	return status;
}

static pal_status with_model(pal_model *model, pal_error *err)
{
	pal_model_info info;
	int32_t *ids;
	size_t n;
	pal_model_get_info(model, &info);
	pal_status status = pal__read_ids(NULL, info.n_vocab, &ids, &n, err);
	if (status)
		return status;
	pal_session *s = NULL;
	const pal_session_options o = pal__engine_session(&engine, (int64_t)n);
	if (n > PAL_MAX_CONTEXT)
		status = pal__fail(err, PAL_ELIMIT, "%zu token ids: at most %d are possible", n,
				   PAL_MAX_CONTEXT);
	else if (n)
		status = pal_session_open(model, &o, &s, err);
	if (!status && n)
		status = write_logits(s, ids, n, (size_t)info.n_vocab, err);
	pal_session_close(s);
	pal__free(ids);
	return status;
}

static pal_status run(const char *path, pal_error *err)
{
	pal_model *model;
	pal_status status = pal__engine_model(&engine, path, &model, NULL, err);
	if (status)
		return status;
	status = with_model(model, err);
	pal__engine_close(&engine, model);
	return status;
}

const pal__command pal__command_logits = {
	.name = "logits",
	.summary = "write the logits of every position of a list of token ids",
	.about = "Reads token ids from standard input, white space between, and writes raw\n"
		 "little-endian float32 rows of the vocabulary's size, one a token. Nothing is\n"
		 "written when an id is wrong.\n",
	.options = options,
	.run = run,
};
