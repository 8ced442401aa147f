/*
 * GF(256) kernels in portable C: eight bytes in a 64-bit integer.
 *
 * A product is the sum, over the bits of the input, of that bit times c * 2^bit; a byte holding 0 or 1 times a byte
 * never carries into its neighbour, so one integer multiplication serves eight bytes. No byte order is assumed.
 */
#include "gf256.h"

#include <string.h>

typedef struct {
    uint64_t basis[8];
} scalar_factor;

static inline uint64_t scalar_load(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

static inline void scalar_store(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, 8);
}

static inline scalar_factor scalar_ready(uint8_t c)
{
    scalar_factor f;
    for (int i = 0; i < 8; i++) f.basis[i] = gf256_table.basis[c][i];
    return f;
}

static inline uint64_t scalar_mul(const scalar_factor *f, uint64_t x)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t sum = 0;
    for (int i = 0; i < 8; i++) sum ^= (x >> i & ones) * f->basis[i];
    return sum;
}

#define K(name) scalar_##name
#define K_NAME "scalar"
#define VB 8
#define V_LOAD(p) scalar_load(p)
#define V_STORE(p, v) scalar_store(p, v)
#define V_XOR(a, b) ((a) ^ (b))
#define V_XOR3(a, b, c) ((a) ^ (b) ^ (c))
#define V_ZERO 0
#define V_FACTOR(c) scalar_ready(c)
#define V_TERM(v) (v)
#define V_MUL(f, t) scalar_mul(&(f), t)
#define V_FUSED 0
#define V_PAIRS 0
#define W_LFSR(M) 1
#define W_DENSE(R) 1
typedef uint64_t vec;
typedef scalar_factor vfactor;
typedef uint64_t vterm;

#include "gf256_kernel.h"

const gf256_kernels *const gf256_scalar = &K(kernels);
