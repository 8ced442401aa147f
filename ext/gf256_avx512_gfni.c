/*
 * GF(256) kernels for AVX-512 with GFNI: 64-byte vectors, one affine instruction per product, three-way XOR in one
 * instruction, and masked loads and stores for the last bytes.
 *
 * The target is set by pragma, so the file compiles without flags; it holds no data if the CPU family has no AVX-512.
 */
#include "gf256.h"

#if defined(__x86_64__) || defined(_M_X64)

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,gfni"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,gfni")
#endif

#define K(name) avx512_gfni_##name
#define K_NAME "avx512-gfni"
#define VB 64
typedef __m512i vec, vfactor, vterm;

#define V_LOAD(p) _mm512_loadu_si512(p)
#define V_STORE(p, v) _mm512_storeu_si512(p, v)
#define V_MASKED
#define V_LOADN(p, n) _mm512_maskz_loadu_epi8(~(__mmask64)0 >> (64 - (n)), p)
#define V_STOREN(p, v, n) _mm512_mask_storeu_epi8(p, ~(__mmask64)0 >> (64 - (n)), v)
#define V_XOR(a, b) _mm512_xor_si512(a, b)
#define V_XOR3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
#define V_ZERO _mm512_setzero_si512()
#define V_FACTOR(c) _mm512_set1_epi64((long long)gf256_table.affine[c])
#define V_TERM(v) (v)
#define V_MUL(f, t) _mm512_gf2p8affine_epi64_epi8(t, f, 0)
#define V_FUSED 1
#define V_PAIRS 1
#define V_STREAM(p, v) _mm512_stream_si512((void *)(p), v)
#define V_FENCE() _mm_sfence()
#define W_LFSR(M) ((M) <= 5 ? 4 : 2) /* 32 registers */
#define W_DENSE(R) ((R) <= 4 ? 4 : 2)

#include "gf256_kernel.h"

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif

const gf256_kernels *const gf256_avx512_gfni = &K(kernels);

#else
const gf256_kernels *const gf256_avx512_gfni = NULL;
#endif
