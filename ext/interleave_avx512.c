/* Bit interleave with AVX-512 VBMI and GFNI: 64 groups (64 * d block bytes) to 64 bytes of every stripe, and back.
 *
 * Rule: all that depends on d sits in index tables built once per call; the loops only permute. Three devices:
 * VPMULTISHIFTQB takes 8 bits from any bit offset of a 64-bit lane (cuts rows), GF2P8AFFINEQB with unit vectors as
 * data and the input as matrix transposes 8 x 8 bits if the rows arrive in reverse order, and an 8 x 8 transposition
 * of 64-bit lanes gathers eight results into one full cache line per stripe.
 */
#include "interleave_avx512.h"
#include "cpu_x86.h"

#ifdef QM_X86

#include <immintrin.h>
#include <string.h>

#define WIDE QM_TARGET("avx512f,avx512bw,avx512vl,avx512vbmi,gfni,avx2,bmi2")
#define INLINE static QM_INLINE

typedef struct { uint8_t b[64] __attribute__((aligned(64))); } table;

WIDE INLINE __m512i get(const table *t) { return _mm512_load_si512(t->b); }

/* Lane i of a[j] trades places with lane j of a[i], lanes of 128 bits. */
WIDE INLINE void transpose_lanes(__m512i *a, __m512i *b, __m512i *c, __m512i *d)
{
    const __m512i ab0 = _mm512_shuffle_i32x4(*a, *b, 0x44), cd0 = _mm512_shuffle_i32x4(*c, *d, 0x44);
    const __m512i ab1 = _mm512_shuffle_i32x4(*a, *b, 0xee), cd1 = _mm512_shuffle_i32x4(*c, *d, 0xee);
    *a = _mm512_shuffle_i32x4(ab0, cd0, 0x88);
    *b = _mm512_shuffle_i32x4(ab0, cd0, 0xdd);
    *c = _mm512_shuffle_i32x4(ab1, cd1, 0x88);
    *d = _mm512_shuffle_i32x4(ab1, cd1, 0xdd);
}

/* 64-bit word i of z[j] trades places with word j of z[i]. */
WIDE INLINE void transpose_words(__m512i z[8])
{
    __m512i a0 = _mm512_unpacklo_epi64(z[0], z[1]), b0 = _mm512_unpackhi_epi64(z[0], z[1]);
    __m512i a1 = _mm512_unpacklo_epi64(z[2], z[3]), b1 = _mm512_unpackhi_epi64(z[2], z[3]);
    __m512i a2 = _mm512_unpacklo_epi64(z[4], z[5]), b2 = _mm512_unpackhi_epi64(z[4], z[5]);
    __m512i a3 = _mm512_unpacklo_epi64(z[6], z[7]), b3 = _mm512_unpackhi_epi64(z[6], z[7]);
    transpose_lanes(&a0, &a1, &a2, &a3);
    transpose_lanes(&b0, &b1, &b2, &b3);
    z[0] = a0; z[1] = b0; z[2] = a1; z[3] = b1;
    z[4] = a2; z[5] = b2; z[6] = a3; z[7] = b3;
}

/* Matrix rows come in reverse (byte 7 - r holds row r); columns leave in order. */
WIDE INLINE __m512i transpose_bits(__m512i reversed_rows)
{
    return _mm512_gf2p8affine_epi64_epi8(_mm512_set1_epi64((long long)0x8040201008040201ULL), reversed_rows, 0);
}

WIDE INLINE __m512i select_bits(__m512i mask, __m512i yes, __m512i no)
{
    return _mm512_ternarylogic_epi64(mask, yes, no, 0xca);
}

WIDE INLINE __m512i unpack_bytes(unsigned high, __m512i a, __m512i b)
{
    return high ? _mm512_unpackhi_epi8(a, b) : _mm512_unpacklo_epi8(a, b);
}

WIDE INLINE __mmask64 low_bytes(unsigned n) { return n >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1; }

/* A result of 8 groups has column c of group g in byte 8g + c; stripes want byte 8c + g. Symmetric in c and g. */
static void fill_by_column(table *t)
{
    for (unsigned c = 0; c < 8; c++)
        for (unsigned g = 0; g < 8; g++) t->b[8 * c + g] = (uint8_t)(8 * g + c);
}

WIDE INLINE void store_columns(__m512i z[8], unsigned q, unsigned d, uint8_t *const *stripes, size_t at)
{
    transpose_words(z);
    for (unsigned c = 0; c < 8 && 8 * q + c < d; c++) _mm512_storeu_si512(stripes[8 * q + c] + at, z[c]);
}

/* d <= 8: eight groups are at most 64 bytes, one lane per group, rows cut at multiples of d. */
WIDE static size_t split_narrow(const uint8_t *block, size_t len, unsigned d, uint8_t *const *stripes)
{
    table spread, cut, by_column;
    __m512i z[8];
    size_t at = 0;

    for (unsigned g = 0; g < 8; g++)
        for (unsigned j = 0; j < 8; j++) {
            spread.b[8 * g + j] = (uint8_t)((g * d + j) & 63);
            cut.b[8 * g + 7 - j] = (uint8_t)(j * d);
        }
    fill_by_column(&by_column);
    for (; len - at * d >= 64 * d + 64; at += 64) {
        for (unsigned t = 0; t < 8; t++) {
            const __m512i raw = _mm512_loadu_si512(block + (at + 8 * t) * d);
            const __m512i rows = _mm512_multishift_epi64_epi8(get(&cut), _mm512_permutexvar_epi8(get(&spread), raw));
            z[t] = _mm512_permutexvar_epi8(get(&by_column), transpose_bits(rows));
        }
        store_columns(z, 0, d, stripes, at);
    }
    return at;
}

/* d >= 9: two groups per load, one lane per row; the four bytes of 16 rows are then sorted into 128-bit lanes by q. */
WIDE static size_t split_wide(const uint8_t *block, size_t len, unsigned d, uint8_t *const *stripes)
{
    table first, second, cut, sort, by_column;
    __m512i z[4][8], w[4];
    size_t at = 0;

    for (unsigned r = 0; r < 8; r++)
        for (unsigned j = 0; j < 8; j++) {
            /* A row needs five bytes from its start; indexes beyond the load wrap and are not looked at. */
            first.b[8 * r + j] = (uint8_t)(((r * d >> 3) + j) & 63);
            second.b[8 * r + j] = (uint8_t)(((r * d >> 3) + j + d) & 63);
            cut.b[8 * r + j] = (uint8_t)(((r * d & 7) + 8 * j) & 63);
            if (j < 4) {
                sort.b[16 * j + 7 - r] = (uint8_t)(8 * r + j);
                sort.b[16 * j + 8 + 7 - r] = (uint8_t)(64 + 8 * r + j);
            }
        }
    fill_by_column(&by_column);
    for (; len - at * d >= 64 * d + 64; at += 64) {
        for (unsigned t = 0; t < 8; t++) {
            for (unsigned p = 0; p < 4; p++) {
                const __m512i raw = _mm512_loadu_si512(block + (at + 8 * t + 2 * p) * d);
                const __m512i a = _mm512_multishift_epi64_epi8(get(&cut), _mm512_permutexvar_epi8(get(&first), raw));
                const __m512i b = _mm512_multishift_epi64_epi8(get(&cut), _mm512_permutexvar_epi8(get(&second), raw));
                w[p] = _mm512_permutex2var_epi8(a, get(&sort), b);
            }
            transpose_lanes(&w[0], &w[1], &w[2], &w[3]);
            for (unsigned q = 0; 8 * q < d; q++)
                z[q][t] = _mm512_permutexvar_epi8(get(&by_column), transpose_bits(w[q]));
        }
        for (unsigned q = 0; 8 * q < d; q++) store_columns(z[q], q, d, stripes, at);
    }
    return at;
}

/* 64 bytes of up to eight stripes -> y[t], eight lanes (groups 8t .. 8t+7 in the order of `arrange`), byte = row. */
WIDE INLINE void load_rows(const uint8_t *const *stripes, unsigned q, unsigned d, size_t at, const table *arrange,
                           __m512i y[8])
{
    for (unsigned c = 0; c < 8; c++)
        y[c] = 8 * q + c < d ? _mm512_loadu_si512(stripes[8 * q + c] + at) : _mm512_setzero_si512();
    transpose_words(y);
    for (unsigned t = 0; t < 8; t++) y[t] = transpose_bits(_mm512_permutexvar_epi8(get(arrange), y[t]));
}

/* d <= 8: close the gaps between rows of d bits in three halvings, then between groups of d bytes. */
WIDE static size_t join_narrow(const uint8_t *const *stripes, unsigned d, uint8_t *block, size_t len)
{
    const __m512i keep1 = _mm512_set1_epi16((short)((1u << d) - 1));
    const __m512i keep2 = _mm512_set1_epi32((int)((1u << 2 * d) - 1));
    const __m512i keep4 = _mm512_set1_epi64((long long)(((uint64_t)1 << 4 * d) - 1));
    const __m128i gap1 = _mm_cvtsi32_si128((int)(8 - d)), gap2 = _mm_cvtsi32_si128((int)(16 - 2 * d));
    const __m128i gap4 = _mm_cvtsi32_si128((int)(32 - 4 * d));
    const __mmask64 whole = low_bytes(8 * d);
    table arrange, close;
    __m512i y[8];
    size_t at = 0;

    memset(&close, 0, sizeof close);
    for (unsigned g = 0; g < 8; g++)
        for (unsigned j = 0; j < 8; j++) {
            arrange.b[8 * g + 7 - j] = (uint8_t)(8 * j + g);
            if (j < d) close.b[g * d + j] = (uint8_t)(8 * g + j);
        }
    for (; len - at * d >= 64 * d; at += 64) {
        load_rows(stripes, 0, d, at, &arrange, y);
        for (unsigned t = 0; t < 8; t++) {
            __m512i x = y[t];
            x = select_bits(keep1, x, _mm512_srl_epi16(x, gap1));
            x = select_bits(keep2, x, _mm512_srl_epi32(x, gap2));
            x = select_bits(keep4, x, _mm512_srl_epi64(x, gap4));
            _mm512_mask_storeu_epi8(block + (at + 8 * t) * d, whole, _mm512_permutexvar_epi8(get(&close), x));
        }
    }
    return at;
}

typedef struct {
    table at[2][2], keep[2][2];  /* [0]: bit offset and valid bits of the output bytes that start in each piece */
                                 /* [1]: the rest of an output byte that started in the piece before */
    table from[2][2];            /* [0], [1]: where the final bytes of two neighbouring groups pick those up */
    uint64_t spans;              /* output bytes that have such a rest */
} glue;

/* A piece is two rows, 2 * d <= 62 bits, in a 64-bit lane; a group is four pieces: lanes 2i, 2i+1 of two registers.
 * Byte j of a group starts in piece 8j / 2d and may end in the next one. */
static void fill_glue(glue *s, unsigned d)
{
    const unsigned bits = 2 * d;
    unsigned started[4] = {0, 0, 0, 0};

    memset(s, 0, sizeof *s);
    for (unsigned j = 0; j < d; j++) {
        const unsigned i = 8 * j / bits, o = 8 * j % bits, m = started[i]++, inside = bits - o;
        for (unsigned lane = 0; lane < 4; lane++) {
            const unsigned to = lane % 2 * d + j, from = 64 * (i >> 1) + 16 * lane + 8 * (i & 1) + m;
            s->at[0][i >> 1].b[from & 63] = (uint8_t)o;
            s->keep[0][i >> 1].b[from & 63] = (uint8_t)(inside < 8 ? (1u << inside) - 1 : 255);
            s->from[0][lane / 2].b[to] = (uint8_t)from;
            if (inside < 8) {
                const unsigned next = 64 * ((i + 1) >> 1) + 16 * lane + 8 * ((i + 1) & 1);
                s->at[1][(i + 1) >> 1].b[next & 63] = (uint8_t)(64 - inside); /* rotates the low bits up */
                s->keep[1][(i + 1) >> 1].b[next & 63] = (uint8_t)(255u << inside);
                s->from[1][lane / 2].b[to] = (uint8_t)next;
                if (lane < 2) s->spans |= (uint64_t)1 << to;
            }
        }
    }
}

/* d >= 9: interleave the four bytes of each row, join rows to pieces, cut output bytes out of the pieces. */
WIDE static size_t join_wide(const uint8_t *const *stripes, unsigned d, uint8_t *block, size_t len)
{
    const __m512i row = _mm512_set1_epi64((long long)(((uint64_t)1 << d) - 1));
    const __m128i gap = _mm_cvtsi32_si128((int)(32 - d));
    const __mmask64 pair = low_bytes(2 * d);
    table arrange;
    glue s;
    __m512i y[4][8];
    size_t at = 0;

    fill_glue(&s, d);
    for (unsigned g = 0; g < 8; g++)    /* even lanes take groups 0..3, odd lanes 4..7: unpacking keeps neighbours */
        for (unsigned c = 0; c < 8; c++) arrange.b[8 * (2 * (g & 3) + (g >> 2)) + 7 - c] = (uint8_t)(8 * c + g);
    memset(y, 0, sizeof y);
    for (; len - at * d >= 64 * d; at += 64) {
        for (unsigned q = 0; 8 * q < d; q++) load_rows(stripes, q, d, at, &arrange, y[q]);
        for (unsigned t = 0; t < 8; t++)
            for (unsigned half = 0; half < 2; half++) {
                const __m512i ab = unpack_bytes(half, y[0][t], y[1][t]);
                const __m512i cd = unpack_bytes(half, y[2][t], y[3][t]);
                __m512i a = _mm512_unpacklo_epi16(ab, cd), b = _mm512_unpackhi_epi16(ab, cd), la, lb, ha, hb;
                a = select_bits(row, a, _mm512_srl_epi64(a, gap));
                b = select_bits(row, b, _mm512_srl_epi64(b, gap));
                la = _mm512_and_si512(_mm512_multishift_epi64_epi8(get(&s.at[0][0]), a), get(&s.keep[0][0]));
                lb = _mm512_and_si512(_mm512_multishift_epi64_epi8(get(&s.at[0][1]), b), get(&s.keep[0][1]));
                ha = _mm512_and_si512(_mm512_multishift_epi64_epi8(get(&s.at[1][0]), a), get(&s.keep[1][0]));
                hb = _mm512_and_si512(_mm512_multishift_epi64_epi8(get(&s.at[1][1]), b), get(&s.keep[1][1]));
                for (unsigned k = 0; k < 2; k++) {
                    const __m512i low = _mm512_permutex2var_epi8(la, get(&s.from[0][k]), lb);
                    const __m512i high = _mm512_maskz_permutex2var_epi8(s.spans, ha, get(&s.from[1][k]), hb);
                    _mm512_mask_storeu_epi8(block + (at + 8 * t + 4 * half + 2 * k) * d, pair,
                                            _mm512_or_si512(low, high));
                }
            }
    }
    return at;
}

size_t qm_interleave_avx512(const uint8_t *block, size_t len, unsigned d, uint8_t *const *stripes)
{
    return d <= 8 ? split_narrow(block, len, d, stripes) : split_wide(block, len, d, stripes);
}

size_t qm_deinterleave_avx512(const uint8_t *const *stripes, unsigned d, uint8_t *block, size_t len)
{
    return d <= 8 ? join_narrow(stripes, d, block, len) : join_wide(stripes, d, block, len);
}

#else

size_t qm_interleave_avx512(const uint8_t *block, size_t len, unsigned d, uint8_t *const *stripes)
{
    (void)block; (void)len; (void)d; (void)stripes;
    return 0;
}

size_t qm_deinterleave_avx512(const uint8_t *const *stripes, unsigned d, uint8_t *block, size_t len)
{
    (void)stripes; (void)d; (void)block; (void)len;
    return 0;
}

#endif
