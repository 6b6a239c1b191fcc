/* What a session is made of as bytes, in the store and in a session's file: the record, and pieces
 * of tokens, events and changes. Layouts: docs/formats/session.md.
 *
 * Invariants:
 *  - What is decoded has the shape that its type promises: counts within their limits, text that
 *    ends and is UTF-8, numbers that are finite. Whether ids and chunks exist is for others to say.
 *  - A decoder reads no byte behind those that it is given.
 */
#ifndef PAL_SESSION_ENCODE_H
#define PAL_SESSION_ENCODE_H

#include "session/store.h"

#define PAL__RECORD_BYTES 288
#define PAL__EVENT_BYTES (16 + 5 * PAL_MAX_SLOTS) /* at most */
#define PAL__CHANGE_HEAD 32                       /* before its ids */
#define PAL__MAX_CHANGES (1 << 24)                /* of a session */

/* Encoders and decoders take nothing that is not so, and say false or 0. */

/* id and owner are not part of it: they are what it is filed under. */
bool pal__record_encode(const pal__record *r, uint64_t n_changes, uint8_t out[PAL__RECORD_BYTES]);
bool pal__record_decode(const uint8_t in[PAL__RECORD_BYTES], pal__record *out, uint64_t *n_changes);

/* Return how many bytes it takes, of in[n]. */
size_t pal__event_encode(const pal_event *e, uint8_t out[PAL__EVENT_BYTES]);
size_t pal__event_decode(const uint8_t *in, size_t n, pal_event *out);

/* A change takes pal__change_bytes (0: it is none). Its ids, [n_old + n_new] from in +
 * PAL__CHANGE_HEAD on, are the caller's to copy: out->ids is NULL. */
size_t pal__change_bytes(const pal__change *c);
void pal__change_encode(const pal__change *c, uint8_t *out);
size_t pal__change_decode(const uint8_t *in, size_t n, pal__change *out);

#endif
