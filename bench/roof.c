/*
 * The memory roof of bench_gf256: the least that any encoder does, which is to read k inputs and write m outputs. One
 * XOR per load keeps the loads; there is no arithmetic worth the name, and no code is faster on these buffers.
 *
 * Built by the bench for the machine it runs on (-march=native). Which shape is fastest depends on the machine, the
 * size and the number of stripes, so there are several, and the bench takes the best. Lengths are rounded up to whole
 * cache lines: the stripes of the bench leave room for that.
 */
#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define VB 64
#elif defined(__AVX__)
#define VB 32
#else
#define VB 16
#endif
typedef uint64_t vec __attribute__((vector_size(VB), aligned(1), may_alias));

#if defined(__AVX512F__)
#define STREAM(p, v) _mm512_stream_si512((void *)(p), (__m512i)(v))
#define FENCE() _mm_sfence()
#elif defined(__AVX__)
#define STREAM(p, v) _mm256_stream_si256((void *)(p), (__m256i)(v))
#define FENCE() _mm_sfence()
#else
#define STREAM(p, v) (*(vec *)(p) = (v))
#define FENCE() ((void)0)
#endif

#define INLINE static inline __attribute__((always_inline))

/* W cache lines of every stripe at offset o; the first three are constants once this is inlined */
INLINE void tile(const int W, const int nt, const int ahead, int k, int m, size_t o, uint8_t *const *stripe)
{
    vec sum[8 * 64 / VB] = {{0}};
    for (int i = 0; i < k; i++) {
        const uint8_t *p = stripe[i] + o;
        if (ahead)
#pragma GCC unroll 8
            for (int line = 0; line < W; line++) __builtin_prefetch(p + ahead + 64 * line);
#pragma GCC unroll 32
        for (int w = 0; w < W * 64 / VB; w++) sum[w] ^= *(const vec *)(p + w * VB);
    }
    for (int j = k; j < k + m; j++)
#pragma GCC unroll 32
        for (int w = 0; w < W * 64 / VB; w++) {
            uint8_t *p = stripe[j] + o + w * VB;
            if (nt)
                STREAM(p, sum[w]);
            else
                *(vec *)p = sum[w];
        }
}

INLINE void pass(const int W, const int nt, const int ahead, int k, int m, size_t len, uint8_t *const *stripe)
{
    size_t o = 0;
    for (; o + W * 64 <= len; o += W * 64) tile(W, nt, ahead, k, m, o, stripe);
    for (; o < len; o += 64) tile(1, nt, ahead, k, m, o, stripe);
    if (nt)
        FENCE();
}

#define EACH_AHEAD(W, nt) CASE(W, nt, 0) CASE(W, nt, 512) CASE(W, nt, 2048)
#define EACH_STORE(W) EACH_AHEAD(W, 0) EACH_AHEAD(W, 1)
#define EVERY EACH_STORE(1) EACH_STORE(2) EACH_STORE(4) EACH_STORE(8)

#define CASE(W, nt, ahead) +1
const int roof_shapes = EVERY;
#undef CASE

/* The stripes must begin at multiples of 64: some shapes store past the cache. */
void roof_run(int shape, long rounds, int k, int m, size_t len, uint8_t *const *stripe)
{
#define CASE(W, nt, ahead)                                      \
    if (shape-- == 0)                                           \
        while (rounds--) pass(W, nt, ahead, k, m, len, stripe);
    EVERY
#undef CASE
}
