/* CRC-32: four bytes per step from tables, or folded by carry-less multiplication, 64 or 256 bytes per step.
 *
 * Rule: same value as zlib.crc32(data, crc) at every level. Folding replaces a vector by a congruent one further on in
 * the message: its two halves times x^(distance +- 32) mod P. The last 16 bytes of the fold and the tail go through the
 * tables, so there is no final reduction to get wrong. Short inputs, the 12 bytes of a challenge first of all, never
 * leave the tables: three steps beat the set-up of a multiplication.
 */
#include "crc32.h"
#include "cpu_x86.h"
#include "wire.h"

#define POLY 0xedb88320u

static uint32_t table[4][256];
static int level;

static uint32_t by_table(uint32_t c, const uint8_t *p, size_t len)
{
    for (; len >= 4; p += 4, len -= 4)
        c = table[3][(c ^ p[0]) & 255] ^ table[2][(c >> 8 ^ p[1]) & 255] ^ table[1][(c >> 16 ^ p[2]) & 255]
            ^ table[0][(c >> 24 ^ p[3]) & 255];
    while (len--) c = c >> 8 ^ table[0][(c ^ *p++) & 255];
    return c;
}

#ifdef QM_X86

#include <immintrin.h>

#define CLMUL QM_TARGET("pclmul,sse4.1")
#define VCLMUL QM_TARGET("avx512f,avx512bw,avx512vl,vpclmulqdq,pclmul")
#define LEAST 128 /* bytes below which the tables are faster or the folds do not apply */

static uint64_t fold128[2], fold512[2], fold2048[2];

/* x^(bits + 32) and x^(bits - 32) mod P, reflected; one place up, because a carry-less product of two reflected
 * 64-bit halves comes out one place down. */
static void fill(uint64_t fold[2], unsigned bits)
{
    for (int half = 0; half < 2; half++) {
        uint32_t c = 0x80000000u;
        for (unsigned n = half ? bits - 32 : bits + 32; n; n--) c = c >> 1 ^ (POLY & (0u - (c & 1)));
        fold[half] = (uint64_t)c << 1;
    }
}

CLMUL static QM_INLINE __m128i fold_on(__m128i x, __m128i by, __m128i next)
{
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(x, by, 0x00), _mm_clmulepi64_si128(x, by, 0x11)), next);
}

CLMUL static QM_INLINE __m128i load(const uint8_t *p, size_t i) { return _mm_loadu_si128((const __m128i *)p + i); }

/* Fold four vectors into one, then 16 bytes per step; the tail goes through the tables. */
CLMUL static QM_INLINE uint32_t close_fold(__m128i a, __m128i b, __m128i c, __m128i d, const uint8_t *p, size_t len)
{
    const __m128i by = load((const uint8_t *)fold128, 0);
    uint8_t last[16];

    a = fold_on(fold_on(fold_on(a, by, b), by, c), by, d);
    for (; len >= 16; p += 16, len -= 16) a = fold_on(a, by, load(p, 0));
    _mm_storeu_si128((__m128i *)last, a);
    return by_table(by_table(0, last, 16), p, len);
}

CLMUL static uint32_t by_clmul(uint32_t crc, const uint8_t *p, size_t len)
{
    const __m128i by = load((const uint8_t *)fold512, 0);
    __m128i a = _mm_xor_si128(load(p, 0), _mm_cvtsi32_si128((int)crc)), b = load(p, 1), c = load(p, 2), d = load(p, 3);

    for (p += 64, len -= 64; len >= 64; p += 64, len -= 64) {
        a = fold_on(a, by, load(p, 0));
        b = fold_on(b, by, load(p, 1));
        c = fold_on(c, by, load(p, 2));
        d = fold_on(d, by, load(p, 3));
    }
    return close_fold(a, b, c, d, p, len);
}

VCLMUL static QM_INLINE __m512i fold_wide(__m512i x, __m512i by, __m512i next)
{
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(x, by, 0x00), _mm512_clmulepi64_epi128(x, by, 0x11), next,
                                     0x96);
}

VCLMUL static uint32_t by_vclmul(uint32_t crc, const uint8_t *p, size_t len)
{
    const __m512i far = _mm512_broadcast_i32x4(load((const uint8_t *)fold2048, 0));
    const __m512i near = _mm512_broadcast_i32x4(load((const uint8_t *)fold512, 0));
    __m512i a = _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
    __m512i b = _mm512_loadu_si512(p + 64), c = _mm512_loadu_si512(p + 128), d = _mm512_loadu_si512(p + 192);

    for (p += 256, len -= 256; len >= 256; p += 256, len -= 256) {
        a = fold_wide(a, far, _mm512_loadu_si512(p));
        b = fold_wide(b, far, _mm512_loadu_si512(p + 64));
        c = fold_wide(c, far, _mm512_loadu_si512(p + 128));
        d = fold_wide(d, far, _mm512_loadu_si512(p + 192));
    }
    a = fold_wide(fold_wide(fold_wide(a, near, b), near, c), near, d);
    for (; len >= 64; p += 64, len -= 64) a = fold_wide(a, near, _mm512_loadu_si512(p));
    crc = close_fold(_mm512_castsi512_si128(a), _mm512_extracti32x4_epi32(a, 1), _mm512_extracti32x4_epi32(a, 2),
                     _mm512_extracti32x4_epi32(a, 3), p, len);
    _mm256_zeroupper(); /* the compiler forgets it here, and SHA-256 after it would run at half speed */
    return crc;
}

#endif

int qm_crc32_select(int limit)
{
    int best = QM_CRC_PORTABLE;

    for (uint32_t n = 0; n < 256; n++) {
        uint32_t c = n;
        for (int bit = 0; bit < 8; bit++) c = c >> 1 ^ (POLY & (0u - (c & 1)));
        table[0][n] = c;
    }
    for (int t = 1; t < 4; t++)
        for (uint32_t n = 0; n < 256; n++) table[t][n] = table[t - 1][n] >> 8 ^ table[0][table[t - 1][n] & 255];
#ifdef QM_X86
    fill(fold128, 128);
    fill(fold512, 512);
    fill(fold2048, 2048);
    if (qm_cpu() & QM_CPU_CLMUL) best = qm_cpu() & QM_CPU_VCLMUL512 ? QM_CRC_VCLMUL : QM_CRC_CLMUL;
#endif
    level = limit < best ? limit : best;
    return level;
}

uint32_t qm_crc32(uint32_t crc, const uint8_t *p, size_t len)
{
#ifdef QM_X86
    if (len >= 2 * LEAST && level == QM_CRC_VCLMUL) return ~by_vclmul(~crc, p, len);
    if (len >= LEAST && level >= QM_CRC_CLMUL) return ~by_clmul(~crc, p, len);
#endif
    return ~by_table(~crc, p, len);
}

/* a * b mod P, all reflected. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (uint32_t bit = 0x80000000u; bit; bit >>= 1) {
        product ^= b & (0u - ((a & bit) != 0));
        b = b >> 1 ^ (POLY & (0u - (b & 1)));
    }
    return product;
}

uint32_t qm_crc32_combine(uint32_t first, uint32_t second, uint64_t len)
{
    uint32_t shift = 0x80000000u, power = 0x00800000u; /* 1, and x^8: one byte */
    for (; len; len >>= 1, power = multiply(power, power))
        if (len & 1) shift = multiply(shift, power);
    return multiply(shift, first) ^ second;
}
