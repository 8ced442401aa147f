/*
 * GF(256) kernels for SSSE3: products by two 16-entry shuffles, one per nibble.
 *
 * The target is set by pragma, so the file compiles without flags; it holds no data if the CPU family has no SSSE3.
 */
#include "gf256.h"

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("ssse3"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("ssse3")
#endif

#define K(name) ssse3_##name
#define K_NAME "ssse3"
#define VB 16
typedef __m128i vec;
typedef struct {
    __m128i low, high;
} vfactor, vterm;

#define V_LOAD(p) _mm_loadu_si128((const __m128i *)(p))
#define V_STORE(p, v) _mm_storeu_si128((__m128i *)(p), v)
#define V_XOR(a, b) _mm_xor_si128(a, b)
#define V_XOR3(a, b, c) _mm_xor_si128(_mm_xor_si128(a, b), c)
#define V_ZERO _mm_setzero_si128()
#define V_FACTOR(c) ssse3_factor(c)
#define V_TERM(v) ssse3_term(v)
#define V_MUL(f, t) _mm_xor_si128(_mm_shuffle_epi8((f).low, (t).low), _mm_shuffle_epi8((f).high, (t).high))
#define V_FUSED 0
#define V_PAIRS 0
#define V_STREAM(p, v) _mm_stream_si128((__m128i *)(p), v)
#define V_FENCE() _mm_sfence()
#define W_LFSR(M) ((M) <= 3 ? 4 : (M) <= 5 ? 2 : 1) /* 16 registers */
#define W_DENSE(R) ((R) <= 2 ? 4 : (R) <= 5 ? 2 : 1)

static inline vfactor ssse3_factor(uint8_t c)
{
    const uint8_t *p = gf256_table.nibble[c];
    vfactor f = {V_LOAD(p), V_LOAD(p + 16)};
    return f;
}

static inline vterm ssse3_term(vec v)
{
    const __m128i mask = _mm_set1_epi8(15);
    vterm t = {_mm_and_si128(v, mask), _mm_and_si128(_mm_srli_epi64(v, 4), mask)};
    return t;
}

#include "gf256_kernel.h"

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

const gf256_kernels *const gf256_ssse3 = &K(kernels);

#else
const gf256_kernels *const gf256_ssse3 = NULL;
#endif
