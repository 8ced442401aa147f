/* Bit interleave of one block over D stripes and back (QMail wire D.2).
 *
 * Bit k of the block, least significant bit of byte 0 first, is bit k / D of stripe k % D. Because 8 rows of D bits
 * are D bytes, byte n of every stripe comes from block bytes n*D .. n*D+D-1 alone: an 8 x D bit matrix transposed.
 * A stripe is therefore ceil(len / D) bytes, which equals the specification's ceil(ceil(8 len / D) / 8).
 */
#ifndef QM_INTERLEAVE_H
#define QM_INTERLEAVE_H

#include <stddef.h>
#include <stdint.h>

enum { QM_BITS_PORTABLE, QM_BITS_BMI2, QM_BITS_AVX512 };

/* Pick the fastest level the processor has that is not above `limit`; returns it. */
int qm_bits_select(int limit);

/* 2 <= d <= 31. Stripes hold ceil(len / d) bytes each and overlap nothing. */
void qm_interleave(const uint8_t *block, size_t len, unsigned d, uint8_t *const *stripes);
void qm_deinterleave(const uint8_t *const *stripes, unsigned d, uint8_t *block, size_t len);

#endif
