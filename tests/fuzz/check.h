/* What a fuzz target demands of what it calls: broken, the program ends and the input is kept. */
#ifndef PAL_TESTS_FUZZ_CHECK_H
#define PAL_TESTS_FUZZ_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(c)                                                                        \
	do {                                                                            \
		if (!(c)) {                                                             \
			fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #c); \
			abort();                                                        \
		}                                                                       \
	} while (0)

#endif
