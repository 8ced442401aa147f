/* AES-CTR kernels for x86-64: AES-NI with 8 blocks in flight, VAES with 16 and 32.
 *
 * Rule: kernels see a run whose low 64 counter bits do not wrap; qm_aes_ctr cuts the message at that boundary, so
 * no kernel carries. Each vector is loaded before it is stored, which is what makes exact aliasing legal.
 */
#include "aes.h"
#include "cpu_x86.h"
#include "wire.h"

#ifdef QM_X86

#include <immintrin.h>

#define NI QM_TARGET("aes,ssse3,sse4.1")
#define V256 QM_TARGET("avx2,aes,vaes")
#define V512 QM_TARGET("avx512f,avx512bw,avx512vl,avx2,aes,vaes")
#define EACH8(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7)
#define EACH4(op) op(0) op(1) op(2) op(3)

static int level;

int qm_aes_select(int limit)
{
    unsigned cpu = qm_cpu();
    int best = cpu & QM_CPU_VAES512 ? QM_AES_VAES512
               : cpu & QM_CPU_VAES256 ? QM_AES_VAES256
               : cpu & QM_CPU_AESNI ? QM_AES_NI : QM_AES_NONE;
    level = limit < best ? limit : best;
    return level;
}

/* FIPS 197 5.2. With four equal columns ShiftRows changes nothing, so AESENCLAST of a broadcast word is SubWord plus
 * an XOR with the round constant: shorter latency than AESKEYGENASSIST. */
NI static QM_INLINE __m128i next_key(__m128i prev, __m128i sub)
{
    prev = _mm_xor_si128(prev, _mm_slli_si128(prev, 4));
    prev = _mm_xor_si128(prev, _mm_slli_si128(prev, 8));
    return _mm_xor_si128(prev, sub);
}

NI void qm_aes_expand(qm_aes_key *key, const uint8_t *bytes, size_t size)
{
    static const uint8_t rcon[10] = {1, 2, 4, 8, 16, 32, 64, 128, 0x1b, 0x36};
    const __m128i rot = _mm_set1_epi32(0x0c0f0e0d); /* broadcast RotWord of the last column */
    __m128i a = _mm_loadu_si128((const __m128i *)bytes), b;
    int i;

    _mm_storeu_si128((__m128i *)key->rk[0], a);
    if (size == 16) {
        key->rounds = 10;
        for (i = 0; i < 10; i++) {
            a = next_key(a, _mm_aesenclast_si128(_mm_shuffle_epi8(a, rot), _mm_set1_epi32(rcon[i])));
            _mm_storeu_si128((__m128i *)key->rk[i + 1], a);
        }
        return;
    }
    key->rounds = 14;
    b = _mm_loadu_si128((const __m128i *)(bytes + 16));
    _mm_storeu_si128((__m128i *)key->rk[1], b);
    for (i = 0; i < 7; i++) {
        a = next_key(a, _mm_aesenclast_si128(_mm_shuffle_epi8(b, rot), _mm_set1_epi32(rcon[i])));
        _mm_storeu_si128((__m128i *)key->rk[2 * i + 2], a);
        if (i == 6) break;
        b = next_key(b, _mm_aesenclast_si128(_mm_shuffle_epi32(a, 0xff), _mm_setzero_si128()));
        _mm_storeu_si128((__m128i *)key->rk[2 * i + 3], b);
    }
}

#define REVERSE16 _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
#define KEY128(r) _mm_loadu_si128((const __m128i *)key->rk[r])
#define START128(i) __m128i b##i = _mm_xor_si128(_mm_shuffle_epi8(ctr, swap), k); ctr = _mm_add_epi64(ctr, one);
#define ROUND128(i) b##i = _mm_aesenc_si128(b##i, k);
#define LAST128(i) b##i = _mm_aesenclast_si128(b##i, k);
#define XOR128(i) _mm_storeu_si128((__m128i *)out + i, _mm_xor_si128(b##i, _mm_loadu_si128((const __m128i *)in + i)));
#define KEEP128(i) _mm_store_si128((__m128i *)stream + i, b##i);

NI static void ctr_ni(const qm_aes_key *key, uint64_t hi, uint64_t lo, const uint8_t *in, uint8_t *out, size_t len)
{
    const __m128i swap = REVERSE16, one = _mm_set_epi64x(0, 1);
    __m128i ctr = _mm_set_epi64x((long long)hi, (long long)lo);
    const int rounds = key->rounds;
    uint8_t stream[128] __attribute__((aligned(16)));
    size_t i;
    int r;

    for (; len >= 128; in += 128, out += 128, len -= 128) {
        __m128i k = KEY128(0);
        EACH8(START128)
        for (r = 1; r < rounds; r++) { k = KEY128(r); EACH8(ROUND128) }
        k = KEY128(rounds);
        EACH8(LAST128)
        EACH8(XOR128)
    }
    if (len) {
        __m128i k = KEY128(0);
        EACH8(START128)
        for (r = 1; r < rounds; r++) { k = KEY128(r); EACH8(ROUND128) }
        k = KEY128(rounds);
        EACH8(LAST128)
        EACH8(KEEP128)
        for (i = 0; i < len; i++) out[i] = in[i] ^ stream[i];
        qm_wipe(stream, sizeof stream);
    }
}

#define KEY256(r) _mm256_broadcastsi128_si256(KEY128(r))
#define START256(i) \
    __m256i b##i = _mm256_xor_si256(_mm256_shuffle_epi8(ctr, swap), k); ctr = _mm256_add_epi64(ctr, two);
#define ROUND256(i) b##i = _mm256_aesenc_epi128(b##i, k);
#define LAST256(i) b##i = _mm256_aesenclast_epi128(b##i, k);
#define XOR256(i) \
    _mm256_storeu_si256((__m256i *)out + i, _mm256_xor_si256(b##i, _mm256_loadu_si256((const __m256i *)in + i)));

V256 static void ctr_vaes256(const qm_aes_key *key, uint64_t hi, uint64_t lo, const uint8_t *in, uint8_t *out,
                             size_t len)
{
    const __m256i swap = _mm256_broadcastsi128_si256(REVERSE16), two = _mm256_set_epi64x(0, 2, 0, 2);
    const long long h = (long long)hi, l = (long long)lo;
    __m256i ctr = _mm256_add_epi64(_mm256_set_epi64x(h, l, h, l), _mm256_set_epi64x(0, 1, 0, 0));
    const int rounds = key->rounds;
    int r;

    for (; len >= 256; in += 256, out += 256, len -= 256, lo += 16) {
        __m256i k = KEY256(0);
        EACH8(START256)
        for (r = 1; r < rounds; r++) { k = KEY256(r); EACH8(ROUND256) }
        k = KEY256(rounds);
        EACH8(LAST256)
        EACH8(XOR256)
    }
    if (len) ctr_ni(key, hi, lo, in, out, len);
}

#define KEY512(r) _mm512_broadcast_i32x4(KEY128(r))
#define START512(i) \
    __m512i b##i = _mm512_xor_si512(_mm512_shuffle_epi8(ctr, swap), k); ctr = _mm512_add_epi64(ctr, four);
#define ROUND512(i) b##i = _mm512_aesenc_epi128(b##i, k);
#define LAST512(i) b##i = _mm512_aesenclast_epi128(b##i, k);
#define XOR512(i) _mm512_storeu_si512(out + 64 * i, _mm512_xor_si512(b##i, _mm512_loadu_si512(in + 64 * i)));
#define PART512(i) { \
    const __mmask64 m = first_bytes(len, 64 * i); \
    _mm512_mask_storeu_epi8(out + 64 * i, m, _mm512_xor_si512(b##i, _mm512_maskz_loadu_epi8(m, in + 64 * i))); }
#define BATCH512(each, finish) { \
    __m512i k = KEY512(0); \
    each(START512) \
    for (r = 1; r < rounds; r++) { k = KEY512(r); each(ROUND512) } \
    k = KEY512(rounds); \
    each(LAST512) \
    each(finish) }
#define EACH1(op) op(0)

/* Mask of the bytes of a 64-byte lane at `from` that lie inside `len`. */
V512 static QM_INLINE __mmask64 first_bytes(size_t len, size_t from)
{
    if (len <= from) return 0;
    return len - from >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << (len - from)) - 1;
}

V512 static void ctr_vaes512(const qm_aes_key *key, uint64_t hi, uint64_t lo, const uint8_t *in, uint8_t *out,
                             size_t len)
{
    const __m512i swap = _mm512_broadcast_i32x4(REVERSE16), four = _mm512_broadcast_i32x4(_mm_set_epi64x(0, 4));
    __m512i ctr = _mm512_add_epi64(_mm512_broadcast_i32x4(_mm_set_epi64x((long long)hi, (long long)lo)),
                                   _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0));
    const int rounds = key->rounds;
    int r;

    for (; len >= 512; in += 512, out += 512, len -= 512) BATCH512(EACH8, XOR512)
    if (len > 256) BATCH512(EACH8, PART512)
    else if (len > 64) BATCH512(EACH4, PART512)
    else if (len) BATCH512(EACH1, PART512)
    (void)ctr;
}

void qm_aes_ctr(const qm_aes_key *key, uint8_t ctr[16], const uint8_t *in, uint8_t *out, size_t len)
{
    uint64_t hi = qm_get_be64(ctr), lo = qm_get_be64(ctr + 8);

    while (len) {
        const uint64_t left = (uint64_t)0 - lo; /* blocks before the low half wraps; 0 means 2^64 */
        size_t part = len;
        if (left && left <= (len - 1) / 16) part = (size_t)left * 16;
        if (level == QM_AES_VAES512) ctr_vaes512(key, hi, lo, in, out, part);
        else if (level == QM_AES_VAES256) ctr_vaes256(key, hi, lo, in, out, part);
        else ctr_ni(key, hi, lo, in, out, part);
        lo += part / 16 + (part % 16 != 0);
        if (!lo) hi++;
        in += part;
        out += part;
        len -= part;
    }
    qm_put_be64(ctr, hi);
    qm_put_be64(ctr + 8, lo);
}

#else /* no AES instructions to be had: the level stays QM_AES_NONE and nothing below is ever called */

int qm_aes_select(int limit)
{
    (void)limit;
    return QM_AES_NONE;
}

void qm_aes_expand(qm_aes_key *key, const uint8_t *bytes, size_t size)
{
    (void)key; (void)bytes; (void)size;
}

void qm_aes_ctr(const qm_aes_key *key, uint8_t ctr[16], const uint8_t *in, uint8_t *out, size_t len)
{
    (void)key; (void)ctr; (void)in; (void)out; (void)len;
}

#endif
