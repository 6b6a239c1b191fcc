/* Runs a fuzz target over the files of the given folders, by name: the corpora as a
 * regression test, with any compiler. A sanitizer or an abort makes it fail. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int is_file(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static int run_file(const char *folder, const char *name)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *f = fopen(path, "rb");
	if (!f || fseek(f, 0, SEEK_END) != 0) {
		perror(path);
		return 1;
	}
	long size = ftell(f);
	uint8_t *data = size < 0 ? NULL : malloc(size ? (size_t)size : 1);
	rewind(f);
	if (!data || fread(data, 1, (size_t)size, f) != (size_t)size) {
		perror(path);
		return 1;
	}
	fclose(f);
	fprintf(stderr, "%s (%ld bytes)\n", path, size); /* the last one named is the culprit */
	LLVMFuzzerTestOneInput(data, (size_t)size);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	int bad = argc < 2, total = 0;
	for (int i = 1; i < argc; i++) {
		struct dirent **names;
		int n = scandir(argv[i], &names, is_file, alphasort);
		if (n <= 0) {
			fprintf(stderr, "%s: no corpus here\n", argv[i]);
			bad = 1;
			continue;
		}
		for (int k = 0; k < n; k++) {
			bad |= run_file(argv[i], names[k]->d_name);
			free(names[k]);
		}
		free(names);
		total += n;
	}
	printf("%d inputs\n", total);
	return bad;
}
