/* The bit interleave in portable C and with PEXT/PDEP, and the choice between those and AVX-512.
 *
 * Rule: one step turns 8 groups (8 * d block bytes) into 8 bytes of every stripe, or back. Inside a step the bits of
 * row r, columns 8q .. 8q+7 of group g are byte r of x[q][g]; an 8 x 8 bit transposition makes its bytes columns, an
 * 8 x 8 byte transposition across g makes each word eight successive bytes of one stripe. Steps may read MARGIN
 * bytes beyond their input and write MARGIN bytes beyond their output, so the end of a block goes through scratch.
 */
#include "interleave.h"
#include "interleave_avx512.h"
#include "cpu_x86.h"
#include "wire.h"

#ifdef QM_X86
#include <immintrin.h>
#define FORCE_INLINE static QM_INLINE
#else
#define FORCE_INLINE static inline
#endif

#define MARGIN 64

typedef uint64_t words[4][8];

/* Swap rows and columns of eight 8 x 8 bit matrices, byte = row, bit = column. A plain loop: it gets vectorised. */
FORCE_INLINE void transpose_bits(uint64_t x[8])
{
    for (int i = 0; i < 8; i++) {
        uint64_t v = x[i], t;
        t = (v ^ v >> 7) & 0x00aa00aa00aa00aaULL;
        v ^= t ^ t << 7;
        t = (v ^ v >> 14) & 0x0000cccc0000ccccULL;
        v ^= t ^ t << 14;
        t = (v ^ v >> 28) & 0x00000000f0f0f0f0ULL;
        x[i] = v ^ t ^ t << 28;
    }
}

/* Byte j of word i trades places with byte i of word j. */
#ifdef QM_X86
FORCE_INLINE void transpose_bytes(uint64_t x[8])
{
    __m128i v[8];
    for (int i = 0; i < 4; i++)
        v[i] = _mm_unpacklo_epi8(_mm_cvtsi64_si128((long long)x[2 * i]), _mm_cvtsi64_si128((long long)x[2 * i + 1]));
    for (int i = 0; i < 4; i += 2) {
        v[4 + i] = _mm_unpacklo_epi16(v[i], v[i + 1]);
        v[5 + i] = _mm_unpackhi_epi16(v[i], v[i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        _mm_storeu_si128((__m128i *)(x + 4 * i), _mm_unpacklo_epi32(v[4 + i], v[6 + i]));
        _mm_storeu_si128((__m128i *)(x + 4 * i + 2), _mm_unpackhi_epi32(v[4 + i], v[6 + i]));
    }
}
#else
FORCE_INLINE void swap_bytes(uint64_t *a, uint64_t *b, int shift, uint64_t mask)
{
    const uint64_t t = (*a >> shift ^ *b) & mask;
    *b ^= t;
    *a ^= t << shift;
}

FORCE_INLINE void transpose_bytes(uint64_t x[8])
{
    for (int i = 0; i < 4; i++) swap_bytes(x + i, x + i + 4, 32, 0x00000000ffffffffULL);
    for (int i = 0; i < 8; i += 4)
        for (int j = i; j < i + 2; j++) swap_bytes(x + j, x + j + 2, 16, 0x0000ffff0000ffffULL);
    for (int i = 0; i < 8; i += 2) swap_bytes(x + i, x + i + 1, 8, 0x00ff00ff00ff00ffULL);
}
#endif

/* Cut the d bytes of group g into rows; bits at and above column d are left over from the next row and never used. */
FORCE_INLINE void cut_portable(const uint8_t *src, unsigned d, words x, int g)
{
    uint64_t a = 0, b = 0, c = 0, e = 0;
    if (d == 8) {
        x[0][g] = qm_get_le64(src);
        return;
    }
    for (unsigned r = 0; r < 8; r++) {
        const uint64_t row = qm_get_le64(src + (r * d >> 3)) >> (r * d & 7);
        a |= (row & 255) << 8 * r;
        if (d <= 8) continue;
        b |= (row >> 8 & 255) << 8 * r;
        if (d <= 16) continue;
        c |= (row >> 16 & 255) << 8 * r;
        e |= (row >> 24 & 255) << 8 * r;
    }
    x[0][g] = a;
    x[1][g] = b; /* columns that do not exist are not looked at */
    x[2][g] = c;
    x[3][g] = e;
}

/* The inverse; here columns at and above d must be zero, and they are, because their stripes do not exist. */
FORCE_INLINE void glue_portable(const words x, int g, unsigned d, uint8_t *dst)
{
    uint64_t acc = 0;
    unsigned have = 0;
    if (d == 8) {
        qm_put_le64(dst, x[0][g]);
        return;
    }
    for (unsigned r = 0; r < 8; r++) {
        uint64_t row = x[0][g] >> 8 * r & 255;
        if (d > 8) row |= (x[1][g] >> 8 * r & 255) << 8;
        if (d > 16) row |= (x[2][g] >> 8 * r & 255) << 16;
        if (d > 24) row |= (x[3][g] >> 8 * r & 255) << 24;
        acc |= row << have;
        qm_put_le64(dst, acc); /* whole bytes are final, the rest is written again with the next row */
        have += d;
        dst += have >> 3;
        acc >>= have & ~7u;
        have &= 7;
    }
}

typedef void cut_fn(const uint8_t *, unsigned, words, int);
typedef void glue_fn(const words, int, unsigned, uint8_t *);
typedef void split_step(const uint8_t *block, unsigned d, uint8_t *const *stripes, size_t at);
typedef void join_step(const uint8_t *const *stripes, size_t at, unsigned d, uint8_t *block);

FORCE_INLINE void split8(const uint8_t *block, unsigned d, uint8_t *const *stripes, size_t at, cut_fn *cut)
{
    words x;
    for (int g = 0; g < 8; g++) cut(block + (unsigned)g * d, d, x, g);
    for (unsigned q = 0; 8 * q < d; q++) {
        transpose_bits(x[q]);
        transpose_bytes(x[q]);
        for (unsigned c = 8 * q; c < 8 * q + 8 && c < d; c++) qm_put_le64(stripes[c] + at, x[q][c % 8]);
    }
}

FORCE_INLINE void join8(const uint8_t *const *stripes, size_t at, unsigned d, uint8_t *block, glue_fn *glue)
{
    words x;
    for (unsigned q = 0; 8 * q < d; q++) {
        for (unsigned c = 8 * q; c < 8 * q + 8; c++) x[q][c % 8] = c < d ? qm_get_le64(stripes[c] + at) : 0;
        transpose_bytes(x[q]);
        transpose_bits(x[q]);
    }
    for (int g = 0; g < 8; g++) glue(x, g, d, block + (unsigned)g * d);
}

static void split_portable(const uint8_t *block, unsigned d, uint8_t *const *stripes, size_t at)
{
    split8(block, d, stripes, at, cut_portable);
}

static void join_portable(const uint8_t *const *stripes, size_t at, unsigned d, uint8_t *block)
{
    join8(stripes, at, d, block, glue_portable);
}

#ifdef QM_X86

#define BMI2 QM_TARGET("avx2,bmi,bmi2")
#define LANES8 0x0101010101010101ULL
#define LANES16 0x0001000100010001ULL

/* d <= 5: the bits of one stripe in each of d words of the block are few masks, all d of them used in turn: a step is
 * d * d extractions, and needs no transposition. Bit 64 i + b of the step is of stripe c if b % d == (c - 64 i) % d. */
#define FEW 5

static struct { uint64_t mask[FEW]; unsigned count[FEW], step; } few[FEW + 1]; /* by d; step is -64 % d */

static void fill_few(void)
{
    for (unsigned d = 2; d <= FEW; d++) {
        few[d].step = (d - 64 % d) % d;
        for (unsigned o = 0; o < d; o++) {
            few[d].mask[o] = 0;
            for (unsigned b = o; b < 64; b += d) few[d].mask[o] |= (uint64_t)1 << b;
            few[d].count[o] = (63 - o) / d + 1;
        }
    }
}

BMI2 FORCE_INLINE void split_few(const uint8_t *block, unsigned d, uint8_t *const *stripes, size_t at)
{
    for (unsigned c = 0; c < d; c++) {
        uint64_t out = 0;
        unsigned have = 0, o = c;
        for (unsigned i = 0; i < d; i++) {
            out |= _pext_u64(qm_get_le64(block + 8 * i), few[d].mask[o]) << have;
            have += few[d].count[o];
            o += few[d].step;
            if (o >= d) o -= d;
        }
        qm_put_le64(stripes[c] + at, out);
    }
}

BMI2 FORCE_INLINE void join_few(const uint8_t *const *stripes, size_t at, unsigned d, uint8_t *block)
{
    uint64_t out[FEW] = {0};
    for (unsigned c = 0; c < d; c++) {
        uint64_t in = qm_get_le64(stripes[c] + at);
        unsigned o = c;
        for (unsigned i = 0; i < d; i++) {
            out[i] |= _pdep_u64(in, few[d].mask[o]);
            in >>= few[d].count[o];
            o += few[d].step;
            if (o >= d) o -= d;
        }
    }
    for (unsigned i = 0; i < d; i++) qm_put_le64(block + 8 * i, out[i]);
}

/* Up to 8: eight rows of d bits are one word with gaps. */
BMI2 FORCE_INLINE void cut_narrow(const uint8_t *src, unsigned d, words x, int g)
{
    x[0][g] = _pdep_u64(qm_get_le64(src), LANES8 * ((1u << d) - 1));
}

BMI2 FORCE_INLINE void glue_narrow(const words x, int g, unsigned d, uint8_t *dst)
{
    qm_put_le64(dst, _pext_u64(x[0][g], LANES8 * ((1u << d) - 1)));
}

/* 9 <= d <= 16: two halves of four 16-bit rows; the second starts in the middle of a byte when d is odd. */
BMI2 FORCE_INLINE void cut_middle(const uint8_t *src, unsigned d, words x, int g)
{
    const uint64_t rows = LANES16 * ((1u << d) - 1);
    const uint64_t a = _pdep_u64(qm_get_le64(src), rows);
    const uint64_t b = _pdep_u64(qm_get_le64(src + (d >> 1)) >> (d & 1) * 4, rows);
    const __m128i v = _mm_set_epi64x((long long)b, (long long)a);
    const __m128i bytes = _mm_packus_epi16(_mm_and_si128(v, _mm_set1_epi16(255)), _mm_srli_epi16(v, 8));
    x[0][g] = (uint64_t)_mm_cvtsi128_si64(bytes);
    x[1][g] = (uint64_t)_mm_extract_epi64(bytes, 1);
}

BMI2 FORCE_INLINE void glue_middle(const words x, int g, unsigned d, uint8_t *dst)
{
    const uint64_t rows = LANES16 * ((1u << d) - 1);
    const __m128i v = _mm_unpacklo_epi8(_mm_cvtsi64_si128((long long)x[0][g]), _mm_cvtsi64_si128((long long)x[1][g]));
    const uint64_t a = _pext_u64((uint64_t)_mm_cvtsi128_si64(v), rows);
    const uint64_t b = _pext_u64((uint64_t)_mm_extract_epi64(v, 1), rows);
    qm_put_le64(dst, a);
    qm_put_le64(dst + (d >> 1), d & 1 ? b << 4 | a >> (4 * d - 4) : b);
}

/* 17 <= d: rows of 32 bits, then pairs of rows of 2 * d bits, then halves of 4 * d bits; the second half starts in the
 * middle of a byte when d is odd. */
BMI2 FORCE_INLINE void glue_wide(const words x, int g, unsigned d, uint8_t *dst)
{
    const __m128i ab = _mm_unpacklo_epi8(_mm_cvtsi64_si128((long long)x[0][g]), _mm_cvtsi64_si128((long long)x[1][g]));
    const __m128i ce = _mm_unpacklo_epi8(_mm_cvtsi64_si128((long long)x[2][g]),
                                         _mm_cvtsi64_si128(d > 24 ? (long long)x[3][g] : 0));
    const __m256i rows = _mm256_set_m128i(_mm_unpackhi_epi16(ab, ce), _mm_unpacklo_epi16(ab, ce));
    const __m256i pairs = _mm256_or_si256(_mm256_and_si256(rows, _mm256_set1_epi64x(0xffffffff)),
                                          _mm256_sll_epi64(_mm256_srli_epi64(rows, 32), _mm_cvtsi32_si128((int)d)));
    uint64_t p[4], half, rest;

    _mm256_storeu_si256((__m256i *)p, pairs);
    qm_put_le64(dst, p[0] | p[1] << 2 * d);
    rest = p[1] >> (64 - 2 * d);
    qm_put_le64(dst + 8, rest);
    half = p[2] | p[3] << 2 * d;
    dst += d >> 1;
    if (d & 1) {
        qm_put_le64(dst, half << 4 | rest >> (4 * d - 68));
        qm_put_le64(dst + 8, p[3] >> (64 - 2 * d) << 4 | half >> 60);
    } else {
        qm_put_le64(dst, half);
        qm_put_le64(dst + 8, p[3] >> (64 - 2 * d));
    }
}

/* The loops of split_few and join_few are short; with d a constant they unroll. The way back is worth it for 2 and 3
 * only: with more stripes d * d deposits take longer than the transposition. */
BMI2 static void split_bmi2(const uint8_t *block, unsigned d, uint8_t *const *stripes, size_t at)
{
    switch (d) {
    case 2: split_few(block, 2, stripes, at); return;
    case 3: split_few(block, 3, stripes, at); return;
    case 4: split_few(block, 4, stripes, at); return;
    case 5: split_few(block, 5, stripes, at); return;
    }
    if (d <= 8) split8(block, d, stripes, at, cut_narrow);
    else if (d <= 16) split8(block, d, stripes, at, cut_middle);
    else split8(block, d, stripes, at, cut_portable);
}

BMI2 static void join_bmi2(const uint8_t *const *stripes, size_t at, unsigned d, uint8_t *block)
{
    if (d == 2) join_few(stripes, at, 2, block);
    else if (d == 3) join_few(stripes, at, 3, block);
    else if (d <= 8) join8(stripes, at, d, block, glue_narrow);
    else if (d <= 16) join8(stripes, at, d, block, glue_middle);
    else join8(stripes, at, d, block, glue_wide);
}

#else

#define split_bmi2 split_portable
#define join_bmi2 join_portable

#endif

static int level;

int qm_bits_select(int limit)
{
    int best = QM_BITS_PORTABLE;
#ifdef QM_X86
    const unsigned cpu = qm_cpu();
    fill_few();
    if (cpu & QM_CPU_BMI2) best = cpu & QM_CPU_BITS512 ? QM_BITS_AVX512 : QM_BITS_BMI2;
#endif
    level = limit < best ? limit : best;
    return level;
}

void qm_interleave(const uint8_t *block, size_t len, unsigned d, uint8_t *const *stripes)
{
    split_step *const step = level >= QM_BITS_BMI2 ? split_bmi2 : split_portable;
    const size_t size = len / d + (len % d != 0);
    uint8_t in[8 * 31 + MARGIN], out[31][8], *parts[31];
    size_t at = 0, left;

    if (level >= QM_BITS_AVX512) at = qm_interleave_avx512(block, len, d, stripes);
    for (; len - at * d >= 8 * d + MARGIN; at += 8) step(block + at * d, d, stripes, at);
    for (unsigned c = 0; c < d; c++) parts[c] = out[c];
    for (; at < size; at += 8) {
        left = len - at * d;
        memset(in, 0, sizeof in);
        memcpy(in, block + at * d, left < 8 * d ? left : 8 * d);
        step(in, d, parts, 0);
        for (unsigned c = 0; c < d; c++) memcpy(stripes[c] + at, out[c], size - at < 8 ? size - at : 8);
    }
}

void qm_deinterleave(const uint8_t *const *stripes, unsigned d, uint8_t *block, size_t len)
{
    join_step *const step = level >= QM_BITS_BMI2 ? join_bmi2 : join_portable;
    const size_t size = len / d + (len % d != 0);
    uint8_t in[31][8], out[8 * 31 + MARGIN];
    const uint8_t *parts[31];
    size_t at = 0, left;

    if (level >= QM_BITS_AVX512) at = qm_deinterleave_avx512(stripes, d, block, len);
    for (; len - at * d >= 8 * d + MARGIN; at += 8) step(stripes, at, d, block + at * d);
    for (unsigned c = 0; c < d; c++) parts[c] = in[c];
    for (; at < size; at += 8) {
        memset(in, 0, sizeof in);
        for (unsigned c = 0; c < d; c++) memcpy(in[c], stripes[c] + at, size - at < 8 ? size - at : 8);
        step(parts, 0, d, out);
        left = len - at * d;
        memcpy(block + at * d, out, left < 8 * d ? left : 8 * d);
    }
}
