/*
 * GF(256) Reed-Solomon: the plain C side of qmail_core._gf256.
 *
 * Field: polynomial 0x11D, generator alpha = 2. Code: systematic, k data and m parity stripes, k + m <= 255, one
 * codeword per byte column. Stripe i is the coefficient of x^(k+m-1-i), so data comes first and parity follows, highest
 * power first.
 *
 * Rules: no Python.h, no allocation, no global state that changes after gf256_init (except by gf256_use and
 * gf256_stream_above, for tests). Helper threads live inside one call and end with it.
 * Callers have checked every count, length and overlap; nothing is read or written outside [p, p + len).
 */
#ifndef QMAIL_GF256_H
#define QMAIL_GF256_H

#include <stddef.h>
#include <stdint.h>

#define GF256_STRIPES 255 /* most stripes of one code: the nonzero field elements */
#define GF256_ROWS 8      /* most outputs of one dense pass */
#define GF256_LEVELS 6
#define GF256_SCRATCH 16384 /* bytes of recomputed parity held at a time: within the first-level cache */

/* ---- tables, filled once by gf256_init ---- */

typedef struct gf256_tables {
    uint8_t nibble[256][32]; /* c * {0..15}, then c * {0x00,0x10..0xF0}: two 16-byte shuffle tables */
    uint64_t affine[256];    /* c as the 8x8 bit matrix of the GFNI affine instruction */
    uint8_t basis[256][8];   /* c * {1,2,4..128}: what the portable kernel multiplies by */
    uint8_t exp[765];        /* alpha^i, three times around so that sums of logarithms need no reduction */
    uint8_t log[256];        /* log[0] stays 0 */
} gf256_tables;

extern gf256_tables gf256_table;

/*
 * Where the stripes of a call are if its caller has just touched them, by the bytes of all of them. Kernels read ahead
 * differently for each. With GF256_STREAM nothing would be left of the outputs in any cache, so stores may bypass it.
 */
typedef enum { GF256_L1, GF256_L2, GF256_L3, GF256_FAR, GF256_STREAM } gf256_place;

/* ---- kernels: one set per instruction level ---- */

typedef struct gf256_kernels {
    const char *name;
    /* dst = XOR of n sources, n >= 1 */
    void (*xor_all)(int n, size_t len, const uint8_t *const *src, uint8_t *dst, gf256_place place);
    /* m parities of k sources by polynomial division; g[j] is the coefficient of x^j, g[j] == g[m-j], g[0] == 1 */
    void (*lfsr)(int k, int m, size_t len, const uint8_t *const *src, uint8_t *const *dst, const uint8_t *g,
                 gf256_place place);
    /* dst[r] = sum over c of cell[c * rows + r] * src[c]; rows <= GF256_ROWS */
    void (*dense)(int rows, int cols, size_t len, const uint8_t *const *src, uint8_t *const *dst, const uint8_t *cell,
                  gf256_place place);
    /* dst[r] ^= cell[r] * (was ^ now), any number of rows */
    void (*update)(int rows, size_t len, const uint8_t *was, const uint8_t *now, uint8_t *const *dst,
                   const uint8_t *cell);
} gf256_kernels;

/* Each is NULL where its file compiles to nothing. */
extern const gf256_kernels *const gf256_scalar;
extern const gf256_kernels *const gf256_ssse3;
extern const gf256_kernels *const gf256_avx2;
extern const gf256_kernels *const gf256_avx2_gfni;
extern const gf256_kernels *const gf256_avx512_gfni;
extern const gf256_kernels *const gf256_neon;

/* ---- dispatch ---- */

void gf256_init(void);                  /* fill tables, look at the CPU, choose the best level; call once */
int gf256_levels(const char **names);   /* levels this CPU can run, slowest first; names has GF256_LEVELS slots */
int gf256_use(const char *name);        /* 0, or -1 if this CPU cannot run that level */
const gf256_kernels *gf256_active(void);
gf256_place gf256_place_of(size_t size);
size_t gf256_stream_above(size_t size); /* set from where on to stream: the last cache by default; returns the old */

/* ---- threads ---- */

#define GF256_THREADS 16                   /* most threads of one call */
#define GF256_PER_THREAD ((size_t)4 << 20) /* least bytes of input per thread: to start one costs some 40 us */

/*
 * Run job(task, from, to) over the columns 0 .. len-1, cut at multiples of 4096 from the first. The caller works too;
 * up to threads - 1 helpers join in if there are `size` bytes of input to keep them busy, and are gone on return.
 */
typedef void (*gf256_job)(void *task, size_t from, size_t to);
void gf256_columns(gf256_job job, void *task, size_t len, size_t size, int threads);

/* ---- the code ---- */

typedef struct gf256_code {
    int k, m, n;
    int threads;                    /* most threads of one call, the caller included */
    int b;                          /* first root is alpha^b, then b+1 .. b+m-1 */
    uint8_t g[GF256_STRIPES + 1];   /* generator polynomial, g[j] of x^j */
    uint8_t *matrix;                /* the same code as a matrix: m rows of k coefficients; storage of the owner */
} gf256_code;

/* scratch of gf256_locate; too large for a small thread stack */
typedef struct gf256_work {
    uint8_t base[GF256_STRIPES * GF256_STRIPES], blind[GF256_STRIPES * GF256_STRIPES];
    uint8_t remainder[GF256_SCRATCH], syndrome[GF256_SCRATCH], zeros[GF256_SCRATCH];
} gf256_work;

static inline uint8_t gf256_mul(uint8_t a, uint8_t c)
{
    return a && c ? gf256_table.exp[gf256_table.log[a] + gf256_table.log[c]] : 0;
}

/* matrix: room for m * k bytes that lives as long as the code */
void gf256_code_init(gf256_code *code, int k, int m, int threads, uint8_t *matrix);

/* 1 if any stripe flagged in `written` shares a byte with any other stripe, else 0; all stripes have len bytes */
int gf256_overlap(int n, size_t len, const uint8_t *const *stripe, const uint8_t *written);

void gf256_encode(const gf256_code *code, size_t len, const uint8_t *const *data, uint8_t *const *parity);

/* copy `size` bytes into k stripes of len = ceil(size / k), zero the padding, fill the m parities */
void gf256_split(const gf256_code *code, size_t size, size_t len, const uint8_t *data, uint8_t *const *stripe);

/* fill the stripes flagged in `lost` (at most m) from the others */
void gf256_reconstruct(const gf256_code *code, size_t len, uint8_t *const *stripe, const uint8_t *lost);

/* 1 if the parity agrees with the data */
int gf256_verify(const gf256_code *code, size_t len, const uint8_t *const *stripe);

/* flag wrong stripes; stripe[i] == NULL is missing. Returns how many, or -1 if no set within reach explains a column */
int gf256_locate(const gf256_code *code, size_t len, const uint8_t *const *stripe, uint8_t *wrong, gf256_work *work);

/* parity ^= column `index` of the generator matrix * (was ^ now) */
void gf256_update(const gf256_code *code, int index, size_t len, const uint8_t *was, const uint8_t *now,
                  uint8_t *const *parity);

#endif
