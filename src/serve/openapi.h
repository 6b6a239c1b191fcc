/* openapi.json, compact: made when the program is built. */
#ifndef PAL_SERVE_OPENAPI_H
#define PAL_SERVE_OPENAPI_H

#include <stddef.h>

extern const char pal__openapi[];
extern const size_t pal__openapi_size; /* bytes, without a NUL */

#endif
