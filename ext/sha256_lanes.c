/* Sixteen SHA-256 states in sixteen lanes of AVX-512, and one or two more by the SHA instructions in the gaps.
 *
 * Rule: a chain is bound by latency, so a quarter of its block goes between every few rounds of the lanes, near enough
 * that the processor sees the next one and keeps the chain going. On Zen 5 a block of a single chain costs 133 cycles
 * alone and 150 along with the lanes; one of two chains 84 and 110.
 */
#include "sha256_lanes.h"
#include "sha256_ni.h"

#ifdef QM_X86

#define WIDE QM_TARGET("avx512f,avx512bw,avx512vl,avx2,sha,ssse3,sse4.1")

int qm_many_level(void)
{
    if (!(qm_cpu() & QM_CPU_SHANI)) return QM_MANY_NONE;
    return qm_cpu() & QM_CPU_AVX512 ? QM_MANY_LANES : QM_MANY_PAIRS;
}

QM_SHA void qm_pair_blocks(uint32_t first[8], const uint8_t *a, uint32_t second[8], const uint8_t *b, size_t count)
{
    qm_ni_work x, y;

    x.now = x.before = qm_ni_open(first);
    y.now = y.before = qm_ni_open(second);
    for (; count; count--, a += 64, b += 64) {
        qm_ni_first(&x, a);
        qm_ni_first(&y, b);
        for (int g = 4; g < 16; g += 4) {
            qm_ni_next(&x, g);
            qm_ni_next(&y, g);
        }
    }
    qm_ni_close(x.now, first);
    qm_ni_close(y.now, second);
}

WIDE static QM_INLINE __m512i xor3(__m512i a, __m512i b, __m512i c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }

#define SUM(x, i, j, k) xor3(_mm512_ror_epi32(x, i), _mm512_ror_epi32(x, j), _mm512_ror_epi32(x, k))
#define MIX(x, i, j, k) xor3(_mm512_ror_epi32(x, i), _mm512_ror_epi32(x, j), _mm512_srli_epi32(x, k))
#define ADD(x, y) _mm512_add_epi32(x, y)
/* Keeps the compiler from reordering a sum: what comes last must be added last, or a round waits for more additions
 * (measured: 960 cycles a block instead of 770). */
#define KEEP(x) __asm__("" : "+v"(x));
/* FIPS 180-4 6.2.2; the state words rotate by renaming. Words of the schedule are replaced by those of 16 rounds on. */
#define ROUND(a, b, c, d, e, f, g, h, j) { \
    const int i = 8 * (half & 1) + j; \
    __m512i t = ADD(h, ADD(w[i], _mm512_set1_epi32((int)qm_sha256_k[8 * half + j]))), m; \
    KEEP(t) \
    t = ADD(t, _mm512_ternarylogic_epi32(e, f, g, 0xca)); \
    KEEP(t) \
    t = ADD(t, SUM(e, 6, 11, 25)); \
    m = ADD(_mm512_ternarylogic_epi32(a, b, c, 0xe8), SUM(a, 2, 13, 22)); \
    KEEP(t) \
    KEEP(m) \
    d = ADD(d, t); \
    h = ADD(t, m); \
    if (half < 6) \
        w[i] = ADD(ADD(w[i], MIX(w[(i + 1) & 15], 7, 18, 3)), \
                   ADD(w[(i + 9) & 15], MIX(w[(i + 14) & 15], 17, 19, 10))); \
    CHAIN_STEP }
#define STEPS 70 /* of the lanes per block: 6 to load it, 64 rounds */
#define CHAIN_STEP \
    if (chains && (due += share) >= STEPS) { \
        due -= STEPS; \
        if (phase) { \
            qm_ni_next(&x, phase); \
            if (chains > 1) qm_ni_next(&y, phase); \
            phase = (phase + 4) & 15; \
        } else if (chained) { \
            qm_ni_first(&x, a); \
            if (chains > 1) qm_ni_first(&y, b); \
            a += 64; \
            b += 64; \
            chained--; \
            phase = 4; \
        } }

/* Word i of z[j] trades places with word j of z[i], in each 128-bit part. */
WIDE static QM_INLINE void transpose_words(__m512i z[4])
{
    const __m512i p = _mm512_unpacklo_epi32(z[0], z[1]), q = _mm512_unpackhi_epi32(z[0], z[1]);
    const __m512i r = _mm512_unpacklo_epi32(z[2], z[3]), t = _mm512_unpackhi_epi32(z[2], z[3]);

    z[0] = _mm512_unpacklo_epi64(p, r);
    z[1] = _mm512_unpackhi_epi64(p, r);
    z[2] = _mm512_unpacklo_epi64(q, t);
    z[3] = _mm512_unpackhi_epi64(q, t);
}

WIDE static QM_INLINE __m512i two_states(const uint32_t *low, const uint32_t *high)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)low)),
                              _mm256_loadu_si256((const __m256i *)high), 1);
}

/* v[i]: word i of all states. Single words stored and then loaded as vectors would cost hundreds of cycles. */
WIDE static QM_INLINE void open_states(uint32_t *const state[QM_LANES], __m512i v[8])
{
    __m512i z[8];

    for (int i = 0; i < 8; i++) z[i] = two_states(state[i / 4 * 8 + i % 4], state[i / 4 * 8 + i % 4 + 4]);
    transpose_words(z);
    transpose_words(z + 4);
    for (int i = 0; i < 4; i++) {
        v[i] = _mm512_shuffle_i32x4(z[i], z[4 + i], 0x88);
        v[4 + i] = _mm512_shuffle_i32x4(z[i], z[4 + i], 0xdd);
    }
}

WIDE static QM_INLINE void close_states(const __m512i v[8], uint32_t *const state[QM_LANES])
{
    __m512i z[8];

    for (int i = 0; i < 4; i++) {
        z[i] = _mm512_shuffle_i32x4(v[i], v[4 + i], 0x44);
        z[4 + i] = _mm512_shuffle_i32x4(v[i], v[4 + i], 0xee);
    }
    transpose_words(z);
    transpose_words(z + 4);
    for (int i = 0; i < 8; i++) {
        uint32_t *const a = state[i / 4 * 8 + i % 4], *const b = state[i / 4 * 8 + i % 4 + 4];
        _mm_storeu_si128((__m128i *)a, _mm512_castsi512_si128(z[i]));
        _mm_storeu_si128((__m128i *)b, _mm512_extracti32x4_epi32(z[i], 1));
        _mm_storeu_si128((__m128i *)(a + 4), _mm512_extracti32x4_epi32(z[i], 2));
        _mm_storeu_si128((__m128i *)(b + 4), _mm512_extracti32x4_epi32(z[i], 3));
    }
}

WIDE static QM_INLINE void lanes(uint32_t *const state[QM_LANES], const uint8_t *const lane[QM_LANES], size_t count,
                                 const int chains, uint32_t *first, const uint8_t *a, uint32_t *second,
                                 const uint8_t *b, size_t chained)
{
    qm_ni_work x, y;
    int phase = 0; /* of the chained block under way: its next round of four, or 0 between blocks */
    const __m512i swap = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    __m512i v[8], w[16], z[16];
    unsigned due = 0;

    if (chains) x.now = x.before = qm_ni_open(first);
    if (chains > 1) y.now = y.before = qm_ni_open(second);
    open_states(state, v);
    for (size_t n = 0; n < count; n++) {
        /* quarters of chained blocks per block of the lanes */
        const unsigned share = chains ? (unsigned)((4 * chained + (count - n) - 1) / (count - n)) : 0;
        __m512i s0 = v[0], s1 = v[1], s2 = v[2], s3 = v[3], s4 = v[4], s5 = v[5], s6 = v[6], s7 = v[7];

        /* word j of the blocks of all lanes into w[j]: a 16 x 16 transposition */
        for (int i = 0; i < 16; i++) z[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(lane[i] + 64 * n), swap);
        for (int i = 0; i < 16; i += 4) { /* z[i + c]: word 4q + c of lanes i .. i + 3 in 128-bit part q */
            transpose_words(z + i);
            CHAIN_STEP
        }
        for (int i = 0; i < 4; i++) {
            const __m512i p = _mm512_shuffle_i32x4(z[i], z[4 + i], 0x88);
            const __m512i q = _mm512_shuffle_i32x4(z[i], z[4 + i], 0xdd);
            const __m512i r = _mm512_shuffle_i32x4(z[8 + i], z[12 + i], 0x88);
            const __m512i t = _mm512_shuffle_i32x4(z[8 + i], z[12 + i], 0xdd);
            w[i] = _mm512_shuffle_i32x4(p, r, 0x88);
            w[4 + i] = _mm512_shuffle_i32x4(q, t, 0x88);
            w[8 + i] = _mm512_shuffle_i32x4(p, r, 0xdd);
            w[12 + i] = _mm512_shuffle_i32x4(q, t, 0xdd);
            if (i % 2) CHAIN_STEP
        }
        for (int half = 0; half < 8; half++) {
            ROUND(s0, s1, s2, s3, s4, s5, s6, s7, 0)
            ROUND(s7, s0, s1, s2, s3, s4, s5, s6, 1)
            ROUND(s6, s7, s0, s1, s2, s3, s4, s5, 2)
            ROUND(s5, s6, s7, s0, s1, s2, s3, s4, 3)
            ROUND(s4, s5, s6, s7, s0, s1, s2, s3, 4)
            ROUND(s3, s4, s5, s6, s7, s0, s1, s2, 5)
            ROUND(s2, s3, s4, s5, s6, s7, s0, s1, 6)
            ROUND(s1, s2, s3, s4, s5, s6, s7, s0, 7)
        }
        v[0] = ADD(v[0], s0); v[1] = ADD(v[1], s1); v[2] = ADD(v[2], s2); v[3] = ADD(v[3], s3);
        v[4] = ADD(v[4], s4); v[5] = ADD(v[5], s5); v[6] = ADD(v[6], s6); v[7] = ADD(v[7], s7);
    }
    close_states(v, state);
    if (!chains) return;
    for (; phase; phase = (phase + 4) & 15) {
        qm_ni_next(&x, phase);
        if (chains > 1) qm_ni_next(&y, phase);
    }
    qm_ni_close(x.now, first);
    if (chains > 1) qm_ni_close(y.now, second);
}

WIDE void qm_lanes_blocks(uint32_t *const state[QM_LANES], const uint8_t *const lane[QM_LANES], size_t count,
                          uint32_t *first, const uint8_t *a, uint32_t *second, const uint8_t *b, size_t chained)
{
    if (!chained) lanes(state, lane, count, 0, NULL, NULL, NULL, NULL, 0);
    else if (!second) lanes(state, lane, count, 1, first, a, NULL, NULL, chained);
    else lanes(state, lane, count, 2, first, a, second, b, chained);
}

#else

int qm_many_level(void) { return QM_MANY_NONE; }

void qm_pair_blocks(uint32_t first[8], const uint8_t *a, uint32_t second[8], const uint8_t *b, size_t count)
{
    (void)first; (void)a; (void)second; (void)b; (void)count;
}

void qm_lanes_blocks(uint32_t *const state[QM_LANES], const uint8_t *const lane[QM_LANES], size_t count,
                     uint32_t *first, const uint8_t *a, uint32_t *second, const uint8_t *b, size_t chained)
{
    (void)state; (void)lane; (void)count; (void)first; (void)a; (void)second; (void)b; (void)chained;
}

#endif
