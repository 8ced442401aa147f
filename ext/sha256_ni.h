/* One block of SHA-256 by the SHA instructions, for the plain loop and for the one that hashes other messages between.
 *
 * The chain of one message is bound by latency: most of the processor idles, which is what the second loop is for.
 */
#ifndef QM_SHA256_NI_H
#define QM_SHA256_NI_H

#include "cpu_x86.h"

#ifdef QM_X86

#include <immintrin.h>

#define QM_SHA QM_TARGET("sha,ssse3,sse4.1")

extern const uint32_t qm_sha256_k[64];

typedef struct { __m128i abef, cdgh; } qm_ni_state; /* the order in which the instructions want the state */

QM_SHA static QM_INLINE qm_ni_state qm_ni_open(const uint32_t state[8])
{
    const __m128i lo = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);       /* CDAB */
    const __m128i hi = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b); /* EFGH */
    const qm_ni_state s = {_mm_alignr_epi8(lo, hi, 8), _mm_blend_epi16(hi, lo, 0xf0)};
    return s;
}

QM_SHA static QM_INLINE void qm_ni_close(qm_ni_state s, uint32_t state[8])
{
    const __m128i lo = _mm_shuffle_epi32(s.abef, 0x1b), hi = _mm_shuffle_epi32(s.cdgh, 0xb1);  /* FEBA, DCHG */
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(lo, hi, 0xf0));                         /* DCBA */
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(hi, lo, 8));                      /* HGFE */
}

/* Four rounds with message words w. */
#define QM_ROUNDS(g, w) { \
    __m128i m = _mm_add_epi32(w, _mm_loadu_si128((const __m128i *)(qm_sha256_k + 4 * (g)))); \
    s.cdgh = _mm_sha256rnds2_epu32(s.cdgh, s.abef, m); \
    s.abef = _mm_sha256rnds2_epu32(s.abef, s.cdgh, _mm_shuffle_epi32(m, 0x0e)); }
/* w0 becomes the words 16 places further on: w0..w3 are the last sixteen. */
#define QM_EXPAND(w0, w1, w2, w3) \
    w0 = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4)), w3);
#define QM_LOAD(i) _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * (i))), swap)

/* A block in four quarters: the first takes in its 64 bytes, the last adds the state from before. */
typedef struct { qm_ni_state now, before; __m128i w0, w1, w2, w3; } qm_ni_work;

QM_SHA static QM_INLINE void qm_ni_first(qm_ni_work *work, const uint8_t *data)
{
    const __m128i swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    qm_ni_state s = work->now;

    work->before = s;
    work->w0 = QM_LOAD(0);
    work->w1 = QM_LOAD(1);
    work->w2 = QM_LOAD(2);
    work->w3 = QM_LOAD(3);
    QM_ROUNDS(0, work->w0) QM_ROUNDS(1, work->w1) QM_ROUNDS(2, work->w2) QM_ROUNDS(3, work->w3)
    work->now = s;
}

QM_SHA static QM_INLINE void qm_ni_next(qm_ni_work *work, int g)
{
    qm_ni_state s = work->now;
    __m128i w0 = work->w0, w1 = work->w1, w2 = work->w2, w3 = work->w3;

    QM_EXPAND(w0, w1, w2, w3) QM_ROUNDS(g, w0)
    QM_EXPAND(w1, w2, w3, w0) QM_ROUNDS(g + 1, w1)
    QM_EXPAND(w2, w3, w0, w1) QM_ROUNDS(g + 2, w2)
    QM_EXPAND(w3, w0, w1, w2) QM_ROUNDS(g + 3, w3)
    if (g == 12) {
        s.abef = _mm_add_epi32(s.abef, work->before.abef);
        s.cdgh = _mm_add_epi32(s.cdgh, work->before.cdgh);
    }
    work->now = s;
    work->w0 = w0; work->w1 = w1; work->w2 = w2; work->w3 = w3;
}

QM_SHA static QM_INLINE qm_ni_state qm_ni_block(qm_ni_state s, const uint8_t *data)
{
    qm_ni_work work = {s, s, s.abef, s.abef, s.abef, s.abef};

    qm_ni_first(&work, data);
    qm_ni_next(&work, 4);
    qm_ni_next(&work, 8);
    qm_ni_next(&work, 12);
    return work.now;
}

#endif
#endif
