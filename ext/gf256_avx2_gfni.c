/*
 * GF(256) kernels for AVX2 with GFNI: a product is one affine instruction (its own field is not ours, so the multiply
 * instruction is of no use; the affine one takes any 8x8 bit matrix).
 *
 * The target is set by pragma, so the file compiles without flags; it holds no data if the CPU family has no GFNI.
 */
#include "gf256.h"

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,gfni"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("avx2,gfni")
#endif

#define K(name) avx2_gfni_##name
#define K_NAME "avx2-gfni"
#define VB 32
typedef __m256i vec, vfactor, vterm;

#define V_LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define V_STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define V_XOR(a, b) _mm256_xor_si256(a, b)
#define V_XOR3(a, b, c) _mm256_xor_si256(_mm256_xor_si256(a, b), c)
#define V_ZERO _mm256_setzero_si256()
#define V_FACTOR(c) _mm256_set1_epi64x((long long)gf256_table.affine[c])
#define V_TERM(v) (v)
#define V_MUL(f, t) _mm256_gf2p8affine_epi64_epi8(t, f, 0)
#define V_FUSED 0
#define V_PAIRS 1
#define V_STREAM(p, v) _mm256_stream_si256((__m256i *)(p), v)
#define V_FENCE() _mm_sfence()
#define W_LFSR(M) ((M) <= 3 ? 4 : (M) <= 6 ? 2 : 1) /* 16 registers */
#define W_DENSE(R) ((R) <= 2 ? 4 : (R) <= 6 ? 2 : 1)

#include "gf256_kernel.h"

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

const gf256_kernels *const gf256_avx2_gfni = &K(kernels);

#else
const gf256_kernels *const gf256_avx2_gfni = NULL;
#endif
