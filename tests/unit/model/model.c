/* Opening models, and the public functions in front of their tokenizers. Arguments: model
 * files of tests/tools/mkmodel.py, whose vocabulary is bytes, "xNz" and three specials. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/topology.h"
#include "model/model.h"

static char **paths;
static int n_paths;
static pal_model *model;
static pal_model_info info;

static int open_model(void **state)
{
	(void)state;
	int s = pal_model_open(paths[0], NULL, &model, NULL);
	if (!s)
		pal_model_get_info(model, &info);
	return s;
}

static int close_model(void **state)
{
	(void)state;
	pal_model_close(model);
	return 0;
}

static void allocation_failures(void **state)
{
	(void)state;
	for (int i = 0; i < n_paths; i++) {
		pal_status s = PAL_ENOMEM;
		for (int n = 0; s; n++) {
			pal_error err = {.text = ""};
			pal_model *m = NULL;
			int64_t live = pal__mem_live();
			pal__mem_fail_after(n);
			s = pal_model_open(paths[i], &(pal_model_options){.n_threads = 2}, &m,
					   &err);
			bool failed = pal__mem_failed();
			pal__mem_fail_after(-1);
			if (s != (failed ? PAL_ENOMEM : PAL_OK))
				fail_msg("allocation %d: %s (%s)", n, pal_status_name(s), err.text);
			assert_true(!s || strstr(err.text, "out of memory"));
			assert_true((m != NULL) == !s);
			pal_model_close(m);
			assert_int_equal(pal__mem_live(), live);
			assert_true(n > 50 || s);
		}
	}
}

static void options(void **state)
{
	pal_model *m = NULL;
	pal_error err;
	(void)state;
	for (int n = -1; n < 1000; n += PAL_MAX_THREADS + 2) {
		const pal_model_options o = {.n_threads = n};
		assert_int_equal(pal_model_open(paths[0], &o, &m, &err), PAL_EINVAL);
		assert_non_null(strstr(err.text, "1 to 256 are possible"));
	}
	const pal_model_options isa = {.isa = "mmx"};
	assert_int_equal(pal_model_open(paths[0], &isa, &m, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "isa mmx"));
	assert_int_equal(pal_model_open("/nothing/here", NULL, &m, &err), PAL_EIO);
	assert_non_null(strstr(err.text, "/nothing/here: "));
	assert_null(m);
	pal_model_close(NULL);
	const pal_model_options three = {.n_threads = 3, .isa = "scalar"};
	assert_int_equal(pal_model_open(paths[0], &three, &m, NULL), PAL_OK);
	pal_model_info i;
	pal_model_get_info(m, &i);
	assert_int_equal(i.n_threads, 3);
	assert_string_equal(i.isa, "scalar");
	pal_model_close(m);
}

static void information(void **state)
{
	(void)state;
	assert_string_equal(info.arch, model->h.arch_name);
	assert_int_equal(strncmp(info.name, "random arch=", 12), 0);
	assert_int_equal(info.n_vocab, model->h.n_vocab);
	assert_int_equal(info.n_ctx_train, model->h.n_ctx_train);
	assert_int_equal(info.n_heads * info.head_dim, model->layers[0].wq.n_rows);
	assert_int_equal(info.n_kv_heads * info.head_dim, model->layers[0].wk.n_rows);
	assert_int_equal(info.n_embd, model->embd.n_cols);
	assert_int_equal(info.n_ff, model->layers[0].up.n_rows);
	cpu_set_t cpus;
	assert_in_range(info.n_threads, 1, pal__cpus_allowed(&cpus));
	assert_true(info.n_params > 0 && info.weight_bytes > info.n_params / 2 && info.hash);
	assert_ptr_equal(pal__model_tokenizer(model), model->tokenizer);
}

static atomic_int counted;

static void count_item(void *arg, size_t item, int worker)
{
	(void)arg, (void)item, (void)worker;
	atomic_fetch_add(&counted, 1);
}

/* Another model on this one's threads. */
static void beside(void **state)
{
	pal_model *m = NULL;
	pal_error err;
	(void)state;
	assert_int_equal(pal__model_open_beside(paths[0], model, &m, NULL), PAL_OK);
	assert_ptr_equal(m->pool, model->pool);
	assert_ptr_equal(m->kernels, model->kernels);
	pal_model_close(m);
	m = NULL;
	assert_int_equal(pal__model_open_beside("/nowhere", model, &m, &err), PAL_EIO);
	assert_null(m);
	int64_t live = pal__mem_live();
	pal_status status = PAL_ENOMEM;
	for (int i = 0; status; i++) {
		pal__mem_fail_after(i);
		status = pal__model_open_beside(paths[0], model, &m, NULL);
		pal__mem_fail_after(-1);
		assert_true(status == PAL_OK || (status == PAL_ENOMEM && !m));
		pal_model_close(m);
		assert_int_equal(pal__mem_live(), live);
	}
	/* The host's threads still work. */
	pal__pool_run(model->pool, 4, count_item, NULL);
	assert_int_equal(counted, 4);
}

static void text(void **state)
{
	static const char in[] = "h\xc3\xa9 x1z<|im_end|>\xff";
	int32_t *ids, bad[] = {1, -1};
	size_t n, n_text;
	char *out;
	const char *bytes = NULL;
	pal_error err;
	(void)state;
	assert_int_equal(
		pal_tokenize(model, in, sizeof in - 1, PAL_TOKENIZE_SPECIAL, &ids, &n, NULL),
		PAL_OK);
	assert_true(n >= 6);
	assert_true(pal_token_is_end(model, ids[n - 2]));
	assert_false(pal_token_is_end(model, ids[0]));
	assert_false(pal_token_is_end(model, -1));
	assert_false(pal_token_is_end(model, info.n_vocab));
	assert_int_equal(pal_detokenize(model, ids, n, PAL_TOKENIZE_SPECIAL, &out, &n_text, NULL),
			 PAL_OK);
	assert_int_equal(n_text, sizeof in - 1);
	assert_memory_equal(out, in, sizeof in);
	pal_free(out);
	/* Special tokens are left out, and a character cut in half still comes out. */
	assert_int_equal(pal_detokenize(model, ids, 2, 0, &out, &n_text, NULL), PAL_OK);
	assert_memory_equal(out, "h\xc3", 3);
	pal_free(out);
	assert_int_equal(pal_detokenize(model, ids + n - 2, 1, 0, &out, &n_text, NULL), PAL_OK);
	assert_string_equal(out, "");
	pal_free(out);
	assert_int_equal(pal_token_bytes(model, ids[0], &bytes, &n_text, NULL), PAL_OK);
	assert_true(n_text == 1 && *bytes == 'h');
	pal_free(ids);
	bad[1] = info.n_vocab;
	assert_int_equal(pal_token_bytes(model, -1, &bytes, &n_text, &err), PAL_EINVAL);
	assert_non_null(strstr(err.text, "token -1: ids are 0 to"));
	out = NULL;
	assert_int_equal(pal_detokenize(model, bad, 2, 0, &out, &n_text, &err), PAL_EINVAL);
	assert_null(out);
	pal__mem_fail_after(0);
	assert_int_equal(pal_detokenize(model, bad, 1, 0, &out, &n_text, &err), PAL_ENOMEM);
	pal__mem_fail_after(-1);
	assert_null(out);
}

static void chat(void **state)
{
	const pal_message message = {"user", "hello"};
	char *out = NULL;
	size_t n;
	pal_error err;
	(void)state;
	assert_int_equal(pal_chat_format(model, NULL, &message, 1, true, PAL_THINKING_DEFAULT, &out,
					 &n, &err),
			 PAL_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "it has no tokenizer.chat_template; choose one with "
					 "--template (chatml"));
	assert_int_equal(pal_chat_format(model, "llama3", &message, 1, true, PAL_THINKING_DEFAULT,
					 &out, &n, NULL),
			 PAL_OK);
	/* It begins with the model's own first token. */
	assert_int_equal(strncmp(out, "<|endoftext|><|start_header_id|>user", 36), 0);
	assert_int_equal(n, strlen(out));
	pal_free(out);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(allocation_failures),
		cmocka_unit_test(options),
		cmocka_unit_test(information),
		cmocka_unit_test(beside),
		cmocka_unit_test(text),
		cmocka_unit_test(chat),
	};
	paths = argv + 1;
	n_paths = argc - 1;
	return n_paths ? cmocka_run_group_tests(tests, open_model, close_model) : 2;
}
