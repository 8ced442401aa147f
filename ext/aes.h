/* AES-128/256 in counter mode by the processor's AES instructions.
 *
 * Rule: constant time or nothing. There is no table version; where the instructions are missing the level stays
 * QM_AES_NONE, no other function here may be called, and the module above uses OpenSSL.
 */
#ifndef QM_AES_H
#define QM_AES_H

#include <stddef.h>
#include <stdint.h>

enum { QM_AES_NONE, QM_AES_NI, QM_AES_VAES256, QM_AES_VAES512 };

typedef struct {
    uint8_t rk[15][16]; /* round keys in the order of use */
    int rounds;         /* 10 or 14 */
} qm_aes_key;

/* Pick the widest level the processor has that is not above `limit`; returns it. Called before any other use. */
int qm_aes_select(int limit);

/* Expand a key of 16 or 32 bytes. The caller wipes the result. */
void qm_aes_expand(qm_aes_key *key, const uint8_t *bytes, size_t size);

/* XOR `len` bytes with the keystream that starts at block `ctr` (128-bit big-endian) and advance `ctr` by
 * ceil(len / 16). `out` may equal `in`; any other overlap is the caller's mistake. */
void qm_aes_ctr(const qm_aes_key *key, uint8_t ctr[16], const uint8_t *in, uint8_t *out, size_t len);

#endif
