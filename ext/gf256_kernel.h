/*
 * GF(256) kernels, written once over an abstract vector and compiled once per instruction set.
 *
 * The including file defines first:
 *   K(name)          the name with the level as suffix
 *   vec, VB          a vector of bytes and its size
 *   V_LOAD V_STORE   unaligned; V_XOR(a, b), V_XOR3(a, b, c), V_ZERO
 *   vfactor          a coefficient made ready; V_FACTOR(c) makes one from a byte
 *   vterm            a vector made ready to be multiplied (nibbles split); V_TERM(v) makes one
 *   V_MUL(f, t)      product, a vec
 *   V_FUSED          1 if V_XOR3 is one instruction: then the matrix product takes two inputs per step
 *   V_PAIRS          1 if the division takes two inputs per step: pays where a product is one instruction
 * optionally V_MASKED with V_LOADN(p, n), V_STOREN(p, v, n) for n <= VB bytes; the rest of a loaded vector is zero
 * optionally V_STREAM(p, v), a store to an aligned address that bypasses the cache, and V_FENCE() behind the last
 * and W_LFSR(M), W_DENSE(R): how many vectors wide a tile is, so that its state fits the registers.
 *
 * Once inlined, every loop over M, R and W has constant bounds, so the arrays of vectors live in registers. A tile
 * keeps all outputs of its columns in registers and reads each input exactly once. The columns behind the last whole
 * tile are done by one more tile that ends at the last byte: it computes some columns twice, which is cheaper than
 * narrow code and stays inside the buffers. (`update` adds into its outputs, so its tail goes through partial loads.)
 */
#include "gf256.h"

#include <string.h>

#if defined(_MSC_VER) && !defined(__clang__)
#define GF_INLINE static __forceinline
#define GF_UNROLL
#define GF_OPAQUE(x) ((void)0)
#define GF_PREFETCH(p) ((void)0)
#else
#define GF_INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define GF_UNROLL _Pragma("clang loop unroll(full)")
#else
#define GF_UNROLL _Pragma("GCC unroll 16")
#endif
#define GF_OPAQUE(x) __asm__("" : "+r"(x)) /* the compiler cannot tell its value */
#define GF_PREFETCH(p) __builtin_prefetch((const void *)(p))
#endif

/*
 * How many bytes ahead of the tile the inputs are asked for. With 20 and more streams the hardware prefetcher gives up,
 * so this decides the speed beyond the second-level cache. From memory 512 bytes are right, 1024 pollute the first level;
 * the third level is near enough for the next tile (20+5, 1 MiB: 82 GB/s with 512, 86 with 256). From the second level
 * the hardware is fast enough, and asking ahead is in its way (10+4, 64 KiB: 91 GB/s with it, 124 without): there it
 * asks for the line that is read anyhow, which costs nothing.
 */
static inline size_t K(distance)(gf256_place place)
{
    return place == GF256_L2 ? 0 : place == GF256_L3 ? 256 : 512;
}

#ifndef V_LOADN
GF_INLINE vec K(loadn)(const uint8_t *p, size_t n)
{
    uint8_t block[VB] = {0};
    memcpy(block, p, n);
    return V_LOAD(block);
}
GF_INLINE void K(storen)(uint8_t *p, vec v, size_t n)
{
    uint8_t block[VB];
    V_STORE(block, v);
    memcpy(p, block, n);
}
#define V_LOADN(p, n) K(loadn)(p, n)
#define V_STOREN(p, v, n) K(storen)(p, v, n)
#endif

/* Vector w of the W of a tile. part != 0: only so many bytes of the last one; known at compile time to be 0 or not. */
#define GF_GET(p, w, part) ((part) && (w) == W - 1 ? V_LOADN(p, part) : V_LOAD(p))
#ifdef V_STREAM
#define GF_BYPASS(p, v) V_STREAM(p, v)
#else
#define GF_BYPASS(p, v) V_STORE(p, v) /* no tile asks for it */
#endif
#define GF_PUT(p, v, w, part, nt)     \
    do {                              \
        if (nt)                       \
            GF_BYPASS(p, v);          \
        else if ((part) && (w) == W - 1) \
            V_STOREN(p, v, part);     \
        else                          \
            V_STORE(p, v);            \
    } while (0)

GF_INLINE void K(ask)(const int W, const uint8_t *p, size_t ahead)
{
    GF_UNROLL for (int line = 0; line < W * VB; line += 64)
    {
        /* as an integer: the address may lie behind the buffer, where a prefetch is harmless but a pointer is not */
        GF_PREFETCH((uintptr_t)p + ahead + (uintptr_t)line);
    }
}

/*
 * Columns in front of the first aligned vector, for streaming stores into all of `count` outputs; -1 if they are not
 * wanted, or no such column is common to all outputs.
 */
static inline ptrdiff_t K(lead)(int count, size_t len, uint8_t *const *dst, gf256_place place)
{
#ifdef V_STREAM
    const uintptr_t at = (uintptr_t)dst[0];
    if (place != GF256_STREAM || len < VB)
        return -1;
    for (int i = 1; i < count; i++)
        if (((uintptr_t)dst[i] ^ at) % VB)
            return -1;
    return (ptrdiff_t)((0 - at) % VB);
#else
    (void)count, (void)len, (void)dst, (void)place;
    return -1;
#endif
}

/*
 * Run TILE(width, offset, part, nt) over all columns; nt is 1 where the stores bypass the cache. With masked loads the
 * columns behind the last whole tile are one narrower tile whose last vector is partial. Without, they are the widest
 * tile that fits, overlapping at the end, and only fewer columns than a vector holds are a partial one.
 */
#ifdef V_STREAM
#define GF_NARROW(W) ((W) > 2 ? 2 : (W)) /* beyond all caches: 20+5, 64 MiB 30 GB/s with 4 vectors, 32 with 2 */
#define GF_STREAM(WIDE, TILE)                                                    \
    if (lead >= 0) {                                                             \
        o = (size_t)lead;                                                        \
        if (o)                                                                   \
            TILE(1, 0, o, 0);                                                    \
        for (; o + (size_t)GF_NARROW(WIDE) * VB <= len; o += (size_t)GF_NARROW(WIDE) * VB) \
            TILE(GF_NARROW(WIDE), o, 0, 1);                                      \
        V_FENCE();                                                               \
    }
#else
#define GF_STREAM(WIDE, TILE) (void)lead;
#endif

#ifdef V_MASKED
#define GF_SWEEP(WIDE, TILE, count, dst)                                         \
    do {                                                                         \
        const ptrdiff_t lead = K(lead)(count, len, dst, place);                  \
        size_t o = 0;                                                            \
        GF_STREAM(WIDE, TILE)                                                    \
        for (; o + (size_t)(WIDE) * VB <= len; o += (size_t)(WIDE) * VB)         \
            TILE(WIDE, o, 0, 0);                                                 \
        if (o == len)                                                            \
            break;                                                               \
        const size_t whole = (len - o - 1) / VB, part = len - o - whole * VB;    \
        if ((WIDE) > 2 && whole == 3)                                            \
            TILE((WIDE) > 2 ? 4 : 1, o, part, 0);                                \
        else if ((WIDE) > 2 && whole == 2)                                       \
            TILE((WIDE) > 2 ? 3 : 1, o, part, 0);                                \
        else if (whole == 1)                                                     \
            TILE(2, o, part, 0);                                                 \
        else                                                                     \
            TILE(1, o, part, 0);                                                 \
    } while (0)
#else
#define GF_SWEEP(WIDE, TILE, count, dst)                                         \
    do {                                                                         \
        const ptrdiff_t lead = K(lead)(count, len, dst, place);                  \
        size_t o = 0;                                                            \
        GF_STREAM(WIDE, TILE)                                                    \
        if (len >= (size_t)(WIDE) * VB)                                          \
            GF_SWEEP_AT(WIDE, TILE);                                             \
        else if ((WIDE) > 2 && len >= (size_t)2 * VB)                            \
            GF_SWEEP_AT(2, TILE);                                                \
        else if (len >= VB)                                                      \
            GF_SWEEP_AT(1, TILE);                                                \
        else if (len)                                                            \
            TILE(1, 0, len, 0);                                                  \
    } while (0)
#define GF_SWEEP_AT(W, TILE)                                                     \
    do {                                                                         \
        for (; o + (size_t)(W) * VB <= len; o += (size_t)(W) * VB)               \
            TILE(W, o, 0, 0);                                                    \
        if (o < len)                                                             \
            TILE(W, len - (size_t)(W) * VB, 0, 0);                               \
    } while (0)
#endif

/* ---- xor_all: so little work per load that asking ahead costs as much as it gains; the hardware is left to it ---- */

GF_INLINE void K(xor_tile)(const int W, size_t o, size_t part, const int nt, int n, const uint8_t *const *src, uint8_t *dst)
{
    vec a[4];
    GF_UNROLL for (int w = 0; w < W; w++) a[w] = GF_GET(src[0] + o + w * VB, w, part);
    int i = 1;
    for (; i + 2 <= n; i += 2) {
        const uint8_t *p = src[i] + o, *q = src[i + 1] + o;
        GF_UNROLL for (int w = 0; w < W; w++) a[w] = V_XOR3(a[w], GF_GET(p + w * VB, w, part), GF_GET(q + w * VB, w, part));
    }
    if (i < n) {
        const uint8_t *p = src[i] + o;
        GF_UNROLL for (int w = 0; w < W; w++) a[w] = V_XOR(a[w], GF_GET(p + w * VB, w, part));
    }
    GF_UNROLL for (int w = 0; w < W; w++) GF_PUT(dst + o + w * VB, a[w], w, part, nt);
}

static void K(xor_all)(int n, size_t len, const uint8_t *const *src, uint8_t *dst, gf256_place place)
{
#define TILE(W, o, part, nt) K(xor_tile)(W, o, part, nt, n, src, dst)
    /*
     * Between the first and the second level, one cache line of each input at a time: with 64-byte vectors and some
     * spacings of the inputs (7 of 9.3 KiB, 9.5 KiB apart) wide tiles run at 110 GB/s, narrow ones at 150. Elsewhere
     * wide tiles are as fast or faster.
     */
    if (VB == 64 && place == GF256_L2)
        GF_SWEEP(1, TILE, 1, &dst);
    else
        GF_SWEEP(4, TILE, 1, &dst);
#undef TILE
}

/* ---- lfsr: parity as the remainder of polynomial division, the inputs shifted in from the highest power ----
 *
 * One step with feedback f = input + s[M-1]:  s[j] = s[j-1] + g[j] f,  s[0] = f.
 * The generator is a palindrome, so M/2 products serve all M - 1 coefficients: q[j] below is shared by j and M - j.
 */
#define GF_Q(q, j) ((q)[(j) <= M / 2 ? (j) : M - (j)])

#if V_PAIRS
/* one step with two inputs: every new state is the XOR of three values, one instruction each */
GF_INLINE void K(lfsr_pair)(const int M, const int W, size_t part, const uint8_t *p, const uint8_t *next, size_t ahead,
                            const vfactor *c, vec *f, vec (*s)[4])
{
    K(ask)(W, p, ahead);
    K(ask)(W, next, ahead);
    GF_UNROLL for (int w = 0; w < W; w++)
    {
        vec q[5], q2[5];
        vterm x = V_TERM(f[w]);
        GF_UNROLL for (int j = 1; j <= M / 2; j++) q[j] = V_MUL(c[j], x);
        vec f2 = V_XOR3(GF_GET(p + w * VB, w, part), s[M - 2][w], GF_Q(q, M - 1));
        vec in = GF_GET(next + w * VB, w, part);
        vterm x2 = V_TERM(f2);
        GF_UNROLL for (int j = 1; j <= M / 2; j++) q2[j] = V_MUL(c[j], x2);
        vec was = f[w];
        f[w] = M == 2 ? V_XOR3(in, was, GF_Q(q2, 1))
                      : V_XOR3(V_XOR(in, s[M > 2 ? M - 3 : 0][w]), GF_Q(q, M - 2), GF_Q(q2, M - 1));
        GF_UNROLL for (int j = M - 2; j >= 2; j--) s[j][w] = V_XOR3(s[j - 2][w], GF_Q(q, j - 1), GF_Q(q2, j));
        if (M > 2)
            s[1][w] = V_XOR(was, GF_Q(q2, 1));
        s[0][w] = f2;
    }
}
#endif

/*
 * The loop over pairs exists in copies that take turns. Stripes mostly lie at equal distances, and a load instruction
 * that walks over them has the hardware prefetch, at that distance, what lies behind the last one. Two copies with turns
 * of two pairs never see one distance twice in a row: 17+3, 64 KiB 105 -> 130 GB/s; 20+5, 64 MiB 27 -> 37. Up to
 * GF_FEW inputs four copies take a pair each and never walk at all: 10+4, 64 KiB 88 -> 126. (Turns must stay loops:
 * unrolled they are copies of one pair each.)
 */
#define GF_FEW 10

GF_INLINE void K(lfsr_tile)(const int M, const int W, size_t o, size_t part, const int nt, int k,
                            const uint8_t *const *src, uint8_t *const *dst, const uint8_t *g, size_t ahead)
{
    vfactor c[5];
    vec s[8][4];
    GF_UNROLL for (int j = 1; j <= M / 2; j++) c[j] = V_FACTOR(g[j]);
    GF_UNROLL for (int j = 0; j < M; j++) GF_UNROLL for (int w = 0; w < W; w++) s[j][w] = V_ZERO;

    /* f is carried with the next input already added, which takes that XOR off the path from product to product */
    vec f[4];
    K(ask)(W, src[0] + o, ahead);
    GF_UNROLL for (int w = 0; w < W; w++) f[w] = GF_GET(src[0] + o + w * VB, w, part);
    int i = 0;
#if V_PAIRS
    int turns = k <= GF_FEW ? 1 : 2;
    GF_OPAQUE(turns);
#define GF_TURN                                           \
    for (int t = 0; t < turns && i + 3 <= k; t++, i += 2) \
        K(lfsr_pair)(M, W, part, src[i + 1] + o, src[i + 2] + o, ahead, c, f, s);
    while (i + 3 <= k) {
        GF_TURN
        GF_TURN
        if (k > GF_FEW)
            continue;
        GF_TURN
        GF_TURN
    }
#undef GF_TURN
#endif
    for (; i + 2 <= k; i++) {
        const uint8_t *next = src[i + 1] + o;
        K(ask)(W, next, ahead);
        GF_UNROLL for (int w = 0; w < W; w++)
        {
            vec q[5], was = f[w];
            vterm x = V_TERM(was);
            GF_UNROLL for (int j = 1; j <= M / 2; j++) q[j] = V_MUL(c[j], x);
            f[w] = V_XOR3(GF_GET(next + w * VB, w, part), s[M - 2][w], GF_Q(q, M - 1));
            GF_UNROLL for (int j = M - 2; j >= 1; j--) s[j][w] = V_XOR(s[j - 1][w], GF_Q(q, j));
            s[0][w] = was;
        }
    }
    GF_UNROLL for (int w = 0; w < W; w++) /* the last input */
    {
        vec q[5];
        vterm x = V_TERM(f[w]);
        GF_UNROLL for (int j = 1; j <= M / 2; j++) q[j] = V_MUL(c[j], x);
        GF_UNROLL for (int j = M - 1; j >= 1; j--) s[j][w] = V_XOR(s[j - 1][w], GF_Q(q, j));
        s[0][w] = f[w];
    }
    GF_UNROLL for (int j = 0; j < M; j++)
    {
        uint8_t *p = dst[M - 1 - j] + o;
        GF_UNROLL for (int w = 0; w < W; w++) GF_PUT(p + w * VB, s[j][w], w, part, nt);
    }
}

#define GF_LFSR(M)                                                                                                     \
    static void K(lfsr_##M)(int k, size_t len, const uint8_t *const *src, uint8_t *const *dst, const uint8_t *g,       \
                            gf256_place place)                                                                         \
    {                                                                                                                  \
        const size_t ahead = K(distance)(place);                                                                       \
        GF_SWEEP(W_LFSR(M), GF_LFSR_TILE_##M, M, dst);                                                                 \
    }
#define GF_LFSR_TILE_2(W, o, part, nt) K(lfsr_tile)(2, W, o, part, nt, k, src, dst, g, ahead)
#define GF_LFSR_TILE_3(W, o, part, nt) K(lfsr_tile)(3, W, o, part, nt, k, src, dst, g, ahead)
#define GF_LFSR_TILE_4(W, o, part, nt) K(lfsr_tile)(4, W, o, part, nt, k, src, dst, g, ahead)
#define GF_LFSR_TILE_5(W, o, part, nt) K(lfsr_tile)(5, W, o, part, nt, k, src, dst, g, ahead)
#define GF_LFSR_TILE_6(W, o, part, nt) K(lfsr_tile)(6, W, o, part, nt, k, src, dst, g, ahead)
#define GF_LFSR_TILE_7(W, o, part, nt) K(lfsr_tile)(7, W, o, part, nt, k, src, dst, g, ahead)
#define GF_LFSR_TILE_8(W, o, part, nt) K(lfsr_tile)(8, W, o, part, nt, k, src, dst, g, ahead)
GF_LFSR(2)
GF_LFSR(3)
GF_LFSR(4)
GF_LFSR(5)
GF_LFSR(6)
GF_LFSR(7)
GF_LFSR(8)

/*
 * More than 8 parities: the state lives in memory as a ring. The slot that holds s[M-1] takes f and thereby becomes
 * s[0], every other slot keeps its place and only gains g f, so nothing is ever moved.
 */
GF_INLINE void K(lfsr_ring)(const int W, size_t o, size_t part, const int nt, int k, int m, const uint8_t *const *src,
                            uint8_t *const *dst, const uint8_t *g, size_t ahead)
{
    vec s[GF256_STRIPES][2];
    for (int j = 0; j < m; j++) GF_UNROLL for (int w = 0; w < W; w++) s[j][w] = V_ZERO;
    int top = m - 1; /* slot of s[M-1]; s[j] sits in slot (top + 1 + j) mod m */
    for (int i = 0; i < k; i++) {
        const uint8_t *p = src[i] + o;
        vterm x[2];
        K(ask)(W, p, ahead);
        GF_UNROLL for (int w = 0; w < W; w++)
        {
            vec f = V_XOR(GF_GET(p + w * VB, w, part), s[top][w]);
            s[top][w] = f;
            x[w] = V_TERM(f);
        }
        int up = top, down = top;
        for (int j = 1; j <= m / 2; j++) {
            vfactor c = V_FACTOR(g[j]);
            up = up + 1 == m ? 0 : up + 1; /* new s[j] */
            down = down ? down - 1 : m - 1; /* new s[m-j] */
            GF_UNROLL for (int w = 0; w < W; w++)
            {
                vec q = V_MUL(c, x[w]);
                s[up][w] = V_XOR(s[up][w], q);
                if (up != down)
                    s[down][w] = V_XOR(s[down][w], q);
            }
        }
        top = top ? top - 1 : m - 1;
    }
    for (int j = 0; j < m; j++) {
        const int slot = (top + 1 + j) % m;
        GF_UNROLL for (int w = 0; w < W; w++) GF_PUT(dst[m - 1 - j] + o + w * VB, s[slot][w], w, part, nt);
    }
}

static void K(lfsr_any)(int k, int m, size_t len, const uint8_t *const *src, uint8_t *const *dst, const uint8_t *g,
                        gf256_place place)
{
#define TILE(W, o, part, nt) K(lfsr_ring)(W, o, part, nt, k, m, src, dst, g, ahead)
    const size_t ahead = K(distance)(place);
    GF_SWEEP(2, TILE, m, dst);
#undef TILE
}

static void K(lfsr)(int k, int m, size_t len, const uint8_t *const *src, uint8_t *const *dst, const uint8_t *g,
                    gf256_place place)
{
    switch (m) {
    case 1: K(xor_all)(k, len, src, dst[0], place); break;
    case 2: K(lfsr_2)(k, len, src, dst, g, place); break;
    case 3: K(lfsr_3)(k, len, src, dst, g, place); break;
    case 4: K(lfsr_4)(k, len, src, dst, g, place); break;
    case 5: K(lfsr_5)(k, len, src, dst, g, place); break;
    case 6: K(lfsr_6)(k, len, src, dst, g, place); break;
    case 7: K(lfsr_7)(k, len, src, dst, g, place); break;
    case 8: K(lfsr_8)(k, len, src, dst, g, place); break;
    default: K(lfsr_any)(k, m, len, src, dst, g, place);
    }
}

/* ---- dense: any matrix, up to GF256_ROWS outputs held in registers ---- */

GF_INLINE void K(dense_tile)(const int R, const int W, size_t o, size_t part, const int nt, int cols,
                             const uint8_t *const *src, uint8_t *const *dst, const uint8_t *cell, size_t ahead)
{
    vec a[8][4];
    GF_UNROLL for (int r = 0; r < R; r++) GF_UNROLL for (int w = 0; w < W; w++) a[r][w] = V_ZERO;
    int i = 0;
#if V_FUSED
    for (; i + 2 <= cols; i += 2, cell += 2 * R) {
        const uint8_t *p = src[i] + o, *p2 = src[i + 1] + o;
        vterm x[4], x2[4];
        K(ask)(W, p, ahead);
        K(ask)(W, p2, ahead);
        GF_UNROLL for (int w = 0; w < W; w++) x[w] = V_TERM(GF_GET(p + w * VB, w, part));
        GF_UNROLL for (int w = 0; w < W; w++) x2[w] = V_TERM(GF_GET(p2 + w * VB, w, part));
        GF_UNROLL for (int r = 0; r < R; r++)
        {
            vfactor c = V_FACTOR(cell[r]), c2 = V_FACTOR(cell[R + r]);
            GF_UNROLL for (int w = 0; w < W; w++) a[r][w] = V_XOR3(a[r][w], V_MUL(c, x[w]), V_MUL(c2, x2[w]));
        }
    }
#endif
    for (; i < cols; i++, cell += R) {
        const uint8_t *p = src[i] + o;
        vterm x[4];
        K(ask)(W, p, ahead);
        GF_UNROLL for (int w = 0; w < W; w++) x[w] = V_TERM(GF_GET(p + w * VB, w, part));
        GF_UNROLL for (int r = 0; r < R; r++)
        {
            vfactor c = V_FACTOR(cell[r]);
            GF_UNROLL for (int w = 0; w < W; w++) a[r][w] = V_XOR(a[r][w], V_MUL(c, x[w]));
        }
    }
    GF_UNROLL for (int r = 0; r < R; r++)
    {
        GF_UNROLL for (int w = 0; w < W; w++) GF_PUT(dst[r] + o + w * VB, a[r][w], w, part, nt);
    }
}

#define GF_DENSE(R)                                                                                                    \
    static void K(dense_##R)(int cols, size_t len, const uint8_t *const *src, uint8_t *const *dst,                     \
                             const uint8_t *cell, gf256_place place)                                                   \
    {                                                                                                                  \
        const size_t ahead = K(distance)(place);                                                                       \
        GF_SWEEP(W_DENSE(R), GF_DENSE_TILE_##R, R, dst);                                                               \
    }
#define GF_DENSE_TILE_1(W, o, part, nt) K(dense_tile)(1, W, o, part, nt, cols, src, dst, cell, ahead)
#define GF_DENSE_TILE_2(W, o, part, nt) K(dense_tile)(2, W, o, part, nt, cols, src, dst, cell, ahead)
#define GF_DENSE_TILE_3(W, o, part, nt) K(dense_tile)(3, W, o, part, nt, cols, src, dst, cell, ahead)
#define GF_DENSE_TILE_4(W, o, part, nt) K(dense_tile)(4, W, o, part, nt, cols, src, dst, cell, ahead)
#define GF_DENSE_TILE_5(W, o, part, nt) K(dense_tile)(5, W, o, part, nt, cols, src, dst, cell, ahead)
#define GF_DENSE_TILE_6(W, o, part, nt) K(dense_tile)(6, W, o, part, nt, cols, src, dst, cell, ahead)
#define GF_DENSE_TILE_7(W, o, part, nt) K(dense_tile)(7, W, o, part, nt, cols, src, dst, cell, ahead)
#define GF_DENSE_TILE_8(W, o, part, nt) K(dense_tile)(8, W, o, part, nt, cols, src, dst, cell, ahead)
GF_DENSE(1)
GF_DENSE(2)
GF_DENSE(3)
GF_DENSE(4)
GF_DENSE(5)
GF_DENSE(6)
GF_DENSE(7)
GF_DENSE(8)

static void K(dense)(int rows, int cols, size_t len, const uint8_t *const *src, uint8_t *const *dst,
                     const uint8_t *cell, gf256_place place)
{
    switch (rows) {
    case 1: K(dense_1)(cols, len, src, dst, cell, place); break;
    case 2: K(dense_2)(cols, len, src, dst, cell, place); break;
    case 3: K(dense_3)(cols, len, src, dst, cell, place); break;
    case 4: K(dense_4)(cols, len, src, dst, cell, place); break;
    case 5: K(dense_5)(cols, len, src, dst, cell, place); break;
    case 6: K(dense_6)(cols, len, src, dst, cell, place); break;
    case 7: K(dense_7)(cols, len, src, dst, cell, place); break;
    case 8: K(dense_8)(cols, len, src, dst, cell, place); break;
    }
}

/* ---- update: add the change of one input into outputs that already exist ---- */

GF_INLINE void K(update_tile)(const int W, size_t o, size_t part, int rows, const uint8_t *was, const uint8_t *now,
                              uint8_t *const *dst, const uint8_t *cell)
{
    vterm x[2];
    GF_UNROLL for (int w = 0; w < W; w++)
        x[w] = V_TERM(V_XOR(GF_GET(was + o + w * VB, w, part), GF_GET(now + o + w * VB, w, part)));
    for (int r = 0; r < rows; r++) {
        uint8_t *p = dst[r] + o;
        vfactor c = V_FACTOR(cell[r]);
        GF_UNROLL for (int w = 0; w < W; w++)
            GF_PUT(p + w * VB, V_XOR(GF_GET(p + w * VB, w, part), V_MUL(c, x[w])), w, part, 0);
    }
}

static void K(update)(int rows, size_t len, const uint8_t *was, const uint8_t *now, uint8_t *const *dst,
                      const uint8_t *cell)
{
    size_t o = 0;
    for (; o + 2 * VB <= len; o += 2 * VB) K(update_tile)(2, o, 0, rows, was, now, dst, cell);
    for (; o + VB <= len; o += VB) K(update_tile)(1, o, 0, rows, was, now, dst, cell);
    if (o < len)
        K(update_tile)(1, o, len - o, rows, was, now, dst, cell);
}

static const gf256_kernels K(kernels) = {K_NAME, K(xor_all), K(lfsr), K(dense), K(update)};
