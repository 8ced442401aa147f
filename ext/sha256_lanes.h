/* SHA-256 of several messages at once: two chains in each other's gaps, or sixteen side by side and two between. */
#ifndef QM_SHA256_LANES_H
#define QM_SHA256_LANES_H

#include <stddef.h>
#include <stdint.h>

#define QM_LANES 16

enum { QM_MANY_NONE, QM_MANY_PAIRS, QM_MANY_LANES };

/* The most the processor can do of these: pairs need the SHA instructions, lanes AVX-512 as well. */
int qm_many_level(void);

/* Hash `count` blocks of 64 bytes of each of two messages. */
void qm_pair_blocks(uint32_t first[8], const uint8_t *a, uint32_t second[8], const uint8_t *b, size_t count);

/* Hash `count` blocks of 64 bytes of each of sixteen messages, and along with them `chained` <= 16 * count blocks of
 * one more message, or of each of two more; `second` is null for one. The inputs may be the same memory; nothing is
 * written but the states. */
void qm_lanes_blocks(uint32_t *const state[QM_LANES], const uint8_t *const lane[QM_LANES], size_t count,
                     uint32_t *first, const uint8_t *a, uint32_t *second, const uint8_t *b, size_t chained);

#endif
