/* SHA-256 and HMAC-SHA-256, streaming, so that a frame is hashed chunk by chunk while it is in the cache. */
#ifndef QM_SHA256_H
#define QM_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t state[8];
    uint64_t length;    /* bytes so far */
    uint8_t block[64];  /* the unfinished block, length % 64 bytes of it valid */
} qm_sha256;

typedef struct {
    qm_sha256 inner, outer;
} qm_hmac;

/* Pick the implementation: 0 portable C, 1 SHA instructions if present. Returns what was picked. */
int qm_sha256_select(int limit);

/* The state before the first block, and `count` blocks of 64 bytes into a state. */
void qm_sha256_start(uint32_t state[8]);
void qm_sha256_blocks(uint32_t state[8], const uint8_t *data, size_t count);

void qm_sha256_init(qm_sha256 *h);
void qm_sha256_update(qm_sha256 *h, const uint8_t *data, size_t len);
void qm_sha256_final(qm_sha256 *h, uint8_t digest[32]);

void qm_hmac_init(qm_hmac *h, const uint8_t *key, size_t len);
void qm_hmac_update(qm_hmac *h, const uint8_t *data, size_t len);
void qm_hmac_final(qm_hmac *h, uint8_t mac[32]); /* also wipes *h, which held the key */

#endif
