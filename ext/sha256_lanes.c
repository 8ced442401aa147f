/* Sixteen SHA-256 states in sixteen lanes of AVX-512, and one more by the SHA instructions in the gaps.
 *
 * Rule: between two blocks of the chained message lie four rounds of the lanes, few enough instructions that the
 * processor sees beyond them and keeps the chain, which is bound by latency, going all the time.
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
/* FIPS 180-4 6.2.2; the state words rotate by renaming. Words of the schedule are replaced by those of 16 rounds on. */
#define ROUND(a, b, c, d, e, f, g, h, j) { \
    const int i = 8 * (half & 1) + j; \
    const __m512i wk = ADD(w[i], _mm512_set1_epi32((int)qm_sha256_k[8 * half + j])); \
    const __m512i t = ADD(ADD(h, wk), ADD(SUM(e, 6, 11, 25), _mm512_ternarylogic_epi32(e, f, g, 0xca))); \
    d = ADD(d, t); \
    h = ADD(t, ADD(SUM(a, 2, 13, 22), _mm512_ternarylogic_epi32(a, b, c, 0xe8))); \
    if (half < 6) \
        w[i] = ADD(ADD(w[i], MIX(w[(i + 1) & 15], 7, 18, 3)), ADD(w[(i + 9) & 15], MIX(w[(i + 14) & 15], 17, 19, 10))); }
#define STEPS 72 /* of the lanes per block: 8 to load it, 64 rounds */
#define CHAIN_STEP { \
    due += share; \
    if (due >= STEPS) { \
        due -= STEPS; \
        if (phase == 0) { if (chained) { qm_ni_first(&work, text); text += 64; chained--; phase = 4; } } \
        else { qm_ni_next(&work, phase); phase = (phase + 4) & 15; } } }

WIDE void qm_lanes_blocks(qm_lanes state, const uint8_t *const lane[QM_LANES], size_t count, uint32_t chain[8],
                          const uint8_t *text, size_t chained)
{
    qm_ni_work work;
    int phase = 0; /* of the chained block under way: its next round of four, or 0 between blocks */
    const __m512i swap = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    __m512i v[8], w[16], x[16];
    unsigned due = 0;

    work.now = work.before = qm_ni_open(chain);
    for (int i = 0; i < 8; i++) v[i] = _mm512_loadu_si512(state[i]);
    for (size_t n = 0; n < count; n++) {
        /* quarters of chained blocks per block of the lanes */
        const unsigned share = (unsigned)((4 * chained + (count - n) - 1) / (count - n));
        __m512i a = v[0], b = v[1], c = v[2], d = v[3], e = v[4], f = v[5], g = v[6], h = v[7];

        /* word j of the blocks of all lanes into w[j]: a 16 x 16 transposition */
        for (int i = 0; i < 16; i++) x[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(lane[i] + 64 * n), swap);
        for (int i = 0; i < 16; i += 4) { /* x[i + c]: word 4q + c of lanes i .. i + 3 in 128-bit part q */
            const __m512i p = _mm512_unpacklo_epi32(x[i], x[i + 1]), q = _mm512_unpackhi_epi32(x[i], x[i + 1]);
            const __m512i r = _mm512_unpacklo_epi32(x[i + 2], x[i + 3]), t = _mm512_unpackhi_epi32(x[i + 2], x[i + 3]);
            x[i] = _mm512_unpacklo_epi64(p, r);
            x[i + 1] = _mm512_unpackhi_epi64(p, r);
            x[i + 2] = _mm512_unpacklo_epi64(q, t);
            x[i + 3] = _mm512_unpackhi_epi64(q, t);
            CHAIN_STEP
        }
        for (int i = 0; i < 4; i++) {
            const __m512i p = _mm512_shuffle_i32x4(x[i], x[4 + i], 0x88), q = _mm512_shuffle_i32x4(x[i], x[4 + i], 0xdd);
            const __m512i r = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0x88);
            const __m512i t = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0xdd);
            w[i] = _mm512_shuffle_i32x4(p, r, 0x88);
            w[4 + i] = _mm512_shuffle_i32x4(q, t, 0x88);
            w[8 + i] = _mm512_shuffle_i32x4(p, r, 0xdd);
            w[12 + i] = _mm512_shuffle_i32x4(q, t, 0xdd);
            CHAIN_STEP
        }
        for (int half = 0; half < 8; half++) {
            ROUND(a, b, c, d, e, f, g, h, 0) CHAIN_STEP
            ROUND(h, a, b, c, d, e, f, g, 1) CHAIN_STEP
            ROUND(g, h, a, b, c, d, e, f, 2) CHAIN_STEP
            ROUND(f, g, h, a, b, c, d, e, 3) CHAIN_STEP
            ROUND(e, f, g, h, a, b, c, d, 4) CHAIN_STEP
            ROUND(d, e, f, g, h, a, b, c, 5) CHAIN_STEP
            ROUND(c, d, e, f, g, h, a, b, 6) CHAIN_STEP
            ROUND(b, c, d, e, f, g, h, a, 7) CHAIN_STEP
        }
        v[0] = ADD(v[0], a); v[1] = ADD(v[1], b); v[2] = ADD(v[2], c); v[3] = ADD(v[3], d);
        v[4] = ADD(v[4], e); v[5] = ADD(v[5], f); v[6] = ADD(v[6], g); v[7] = ADD(v[7], h);
    }
    for (int i = 0; i < 8; i++) _mm512_storeu_si512(state[i], v[i]);
    for (; phase; phase = (phase + 4) & 15) qm_ni_next(&work, phase);
    for (; chained; chained--, text += 64) work.now = qm_ni_block(work.now, text);
    qm_ni_close(work.now, chain);
}

#else

int qm_many_level(void) { return QM_MANY_NONE; }

void qm_pair_blocks(uint32_t first[8], const uint8_t *a, uint32_t second[8], const uint8_t *b, size_t count)
{
    (void)first; (void)a; (void)second; (void)b; (void)count;
}

void qm_lanes_blocks(qm_lanes state, const uint8_t *const lane[QM_LANES], size_t count, uint32_t chain[8],
                     const uint8_t *text, size_t chained)
{
    (void)state; (void)lane; (void)count; (void)chain; (void)text; (void)chained;
}

#endif
