/* The web page: files of the program itself, which need nothing from anywhere else.
 *
 * They are made at build time from src/serve/page by embed.py, with the chart library from npm. A
 * build without it (-Dpage=disabled) has a page at / that says so.
 */
#ifndef PAL_SERVE_PAGE_H
#define PAL_SERVE_PAGE_H

#include "serve/http.h"

typedef struct {
	const char *path;               /* "/", "/page/app.js" */
	const char *content_type, *tag; /* tag: an ETag, quotes included */
	const unsigned char *data;      /* [size] */
	size_t size;                    /* bytes */
} pal__page_file;

extern const pal__page_file pal__page_files[]; /* a path of NULL ends it */

const pal__page_file *pal__page_find(const char *path); /* or NULL */

/* Serves them. Browsers ask each time whether a file is still the same; they may not load, embed
 * or run anything but these files. */
void pal__page_get(const pal__http_request *request, pal__reply *reply);

/* None needs a key, since none has anything to hide. Ends with a method of NULL. */
extern const pal__route pal__page_routes[];

#endif
