/* The AVX-512 kernels of the bit interleave, called by interleave.c only where QM_CPU_BITS512 is present.
 *
 * Both work on whole runs of 64 groups and return the number of stripe bytes they did; the caller does the rest.
 */
#ifndef QM_INTERLEAVE_AVX512_H
#define QM_INTERLEAVE_AVX512_H

#include <stddef.h>
#include <stdint.h>

size_t qm_interleave_avx512(const uint8_t *block, size_t len, unsigned d, uint8_t *const *stripes);
size_t qm_deinterleave_avx512(const uint8_t *const *stripes, unsigned d, uint8_t *block, size_t len);

#endif
