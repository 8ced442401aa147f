/* Many SHA-256 messages at once, on whatever the processor has for it. */
#ifndef QM_SHA256_MANY_H
#define QM_SHA256_MANY_H

#include <stddef.h>
#include <stdint.h>

/* Whole blocks of one message. */
typedef struct qm_stream {
    uint32_t *state;                   /* eight words, of the message so far */
    const uint8_t *at;                 /* the next block */
    size_t run;                        /* how many blocks lie together from there */
    size_t left;                       /* how many there are to go in all */
    void (*more)(struct qm_stream *);  /* called when run is 0 and left is not: sets at and run, or hashes by itself */
    const void *from;                  /* these two are for `more` alone */
    size_t place;
} qm_stream;

typedef struct {
    const uint8_t *key; /* 32 bytes */
    const uint8_t *data;
    size_t size;
    uint8_t *mac;
} qm_hmac_job;

/* Choose how: QM_MANY_NONE, one after the other, or the better of what the processor has that is not above `limit`
 * (sha256_lanes.h); returns it. */
int qm_many_select(int limit);

/* False if it is one after the other in any case. */
int qm_many_helps(void);

/* Hash all streams to their end. Only the first `texts` may have `more`; the others lie in one piece each. */
void qm_many_blocks(qm_stream *streams, size_t texts, size_t count);

/* HMAC-SHA-256 of every job, whatever their sizes. */
void qm_hmac_many(const qm_hmac_job *jobs, size_t count);

#endif
