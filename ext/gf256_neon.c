/*
 * GF(256) kernels for 64-bit ARM: products by two 16-entry table look-ups, one per nibble.
 *
 * NEON is part of every AArch64 CPU, so there is nothing to detect; on other machines the file holds no kernels.
 */
#include "gf256.h"

#if defined(__aarch64__) && defined(__ARM_NEON)

#include <arm_neon.h>

#define K(name) neon_##name
#define K_NAME "neon"
#define VB 16
typedef uint8x16_t vec;
typedef struct {
    uint8x16_t low, high;
} vfactor, vterm;

#define V_LOAD(p) vld1q_u8(p)
#define V_STORE(p, v) vst1q_u8(p, v)
#define V_XOR(a, b) veorq_u8(a, b)
#define V_XOR3(a, b, c) veorq_u8(veorq_u8(a, b), c)
#define V_ZERO vdupq_n_u8(0)
#define V_FACTOR(c) neon_factor(c)
#define V_TERM(v) neon_term(v)
#define V_MUL(f, t) veorq_u8(vqtbl1q_u8((f).low, (t).low), vqtbl1q_u8((f).high, (t).high))
#define V_FUSED 0
#define V_PAIRS 0
#define W_LFSR(M) ((M) <= 4 ? 4 : 2) /* 32 registers */
#define W_DENSE(R) ((R) <= 4 ? 4 : 2)

static inline vfactor neon_factor(uint8_t c)
{
    const uint8_t *p = gf256_table.nibble[c];
    vfactor f = {V_LOAD(p), V_LOAD(p + 16)};
    return f;
}

static inline vterm neon_term(vec v)
{
    vterm t = {vandq_u8(v, vdupq_n_u8(15)), vshrq_n_u8(v, 4)};
    return t;
}

#include "gf256_kernel.h"

const gf256_kernels *const gf256_neon = &K(kernels);

#else
const gf256_kernels *const gf256_neon = NULL;
#endif
