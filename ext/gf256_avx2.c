/*
 * GF(256) kernels for AVX2: products by two 16-entry shuffles, one per nibble, in both halves of a 32-byte vector.
 *
 * The target is set by pragma, so the file compiles without flags; it holds no data if the CPU family has no AVX2.
 */
#include "gf256.h"

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#define K(name) avx2_##name
#define K_NAME "avx2"
#define VB 32
typedef __m256i vec;
typedef struct {
    __m256i low, high;
} vfactor, vterm;

#define V_LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define V_STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define V_XOR(a, b) _mm256_xor_si256(a, b)
#define V_XOR3(a, b, c) _mm256_xor_si256(_mm256_xor_si256(a, b), c)
#define V_ZERO _mm256_setzero_si256()
#define V_FACTOR(c) avx2_factor(c)
#define V_TERM(v) avx2_term(v)
#define V_MUL(f, t) _mm256_xor_si256(_mm256_shuffle_epi8((f).low, (t).low), _mm256_shuffle_epi8((f).high, (t).high))
#define V_FUSED 0
#define V_PAIRS 0
#define V_STREAM(p, v) _mm256_stream_si256((__m256i *)(p), v)
#define V_FENCE() _mm_sfence()
#define W_LFSR(M) ((M) <= 3 ? 4 : (M) <= 5 ? 2 : 1) /* 16 registers */
#define W_DENSE(R) ((R) <= 2 ? 4 : (R) <= 5 ? 2 : 1)

static inline vfactor avx2_factor(uint8_t c)
{
    const uint8_t *p = gf256_table.nibble[c];
    vfactor f = {_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p)),
                 _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(p + 16)))};
    return f;
}

static inline vterm avx2_term(vec v)
{
    const __m256i mask = _mm256_set1_epi8(15);
    vterm t = {_mm256_and_si256(v, mask), _mm256_and_si256(_mm256_srli_epi64(v, 4), mask)};
    return t;
}

#include "gf256_kernel.h"

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

const gf256_kernels *const gf256_avx2 = &K(kernels);

#else
const gf256_kernels *const gf256_avx2 = NULL;
#endif
