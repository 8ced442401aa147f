/* SHA-256 (FIPS 180-4) with the x86 SHA instructions or in portable C, and HMAC (RFC 2104) on top.
 *
 * Rule: no branch and no index depends on the data in either version, and HMAC state is wiped when it is finished.
 */
#include "sha256.h"
#include "cpu_x86.h"
#include "wire.h"

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t ror(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* One round; the eight state words rotate by renaming, so a round moves nothing. */
#define ROUND(a, b, c, d, e, f, g, h, i) { \
    const uint32_t t = h + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + (g ^ (e & (f ^ g))) + K[i] + w[i]; \
    d += t; \
    h = t + (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & b) | (c & (a | b))); }

static void blocks_portable(uint32_t state[8], const uint8_t *data, size_t count)
{
    uint32_t w[64];

    for (; count--; data += 64) {
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        for (int i = 0; i < 16; i++) w[i] = qm_get_be32(data + 4 * i);
        for (int i = 16; i < 64; i++) {
            const uint32_t x = w[i - 15], y = w[i - 2];
            w[i] = w[i - 16] + w[i - 7] + (ror(x, 7) ^ ror(x, 18) ^ x >> 3) + (ror(y, 17) ^ ror(y, 19) ^ y >> 10);
        }
        for (int i = 0; i < 64; i += 8) {
            ROUND(a, b, c, d, e, f, g, h, i)
            ROUND(h, a, b, c, d, e, f, g, i + 1)
            ROUND(g, h, a, b, c, d, e, f, i + 2)
            ROUND(f, g, h, a, b, c, d, e, i + 3)
            ROUND(e, f, g, h, a, b, c, d, i + 4)
            ROUND(d, e, f, g, h, a, b, c, i + 5)
            ROUND(c, d, e, f, g, h, a, b, i + 6)
            ROUND(b, c, d, e, f, g, h, a, i + 7)
        }
        state[0] += a; state[1] += b; state[2] += c; state[3] += d;
        state[4] += e; state[5] += f; state[6] += g; state[7] += h;
    }
    qm_wipe(w, sizeof w);
}

#ifdef QM_X86

#include <immintrin.h>

#define SHA QM_TARGET("sha,ssse3,sse4.1")

/* Four rounds with message words w; the instructions want the state as (ABEF, CDGH). */
#define ROUNDS(g, w) { \
    __m128i m = _mm_add_epi32(w, _mm_loadu_si128((const __m128i *)(K + 4 * (g)))); \
    cdgh = _mm_sha256rnds2_epu32(cdgh, abef, m); \
    abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(m, 0x0e)); }
/* w0 becomes the words 16 places further on: w0..w3 are the last sixteen. */
#define EXPAND(w0, w1, w2, w3) \
    w0 = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4)), w3);
#define LOAD(i) _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * (i))), swap)

SHA static void blocks_ni(uint32_t state[8], const uint8_t *data, size_t count)
{
    const __m128i swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    __m128i lo = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);        /* CDAB */
    __m128i hi = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);  /* EFGH */
    __m128i abef = _mm_alignr_epi8(lo, hi, 8), cdgh = _mm_blend_epi16(hi, lo, 0xf0);

    for (; count--; data += 64) {
        const __m128i abef0 = abef, cdgh0 = cdgh;
        __m128i w0 = LOAD(0), w1 = LOAD(1), w2 = LOAD(2), w3 = LOAD(3);
        ROUNDS(0, w0) ROUNDS(1, w1) ROUNDS(2, w2) ROUNDS(3, w3)
        for (int g = 4; g < 16; g += 4) {
            EXPAND(w0, w1, w2, w3) ROUNDS(g, w0)
            EXPAND(w1, w2, w3, w0) ROUNDS(g + 1, w1)
            EXPAND(w2, w3, w0, w1) ROUNDS(g + 2, w2)
            EXPAND(w3, w0, w1, w2) ROUNDS(g + 3, w3)
        }
        abef = _mm_add_epi32(abef, abef0);
        cdgh = _mm_add_epi32(cdgh, cdgh0);
    }
    lo = _mm_shuffle_epi32(abef, 0x1b);                                                    /* FEBA */
    hi = _mm_shuffle_epi32(cdgh, 0xb1);                                                    /* DCHG */
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(lo, hi, 0xf0));                     /* DCBA */
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(hi, lo, 8));                  /* HGFE */
}

static int has_ni(void) { return (qm_cpu() & QM_CPU_SHANI) != 0; }

#else

static void blocks_ni(uint32_t state[8], const uint8_t *data, size_t count) { blocks_portable(state, data, count); }
static int has_ni(void) { return 0; }

#endif

static int use_ni;

int qm_sha256_select(int limit)
{
    use_ni = limit > 0 && has_ni();
    return use_ni;
}

static void blocks(uint32_t state[8], const uint8_t *data, size_t count)
{
    if (use_ni) blocks_ni(state, data, count);
    else blocks_portable(state, data, count);
}

void qm_sha256_init(qm_sha256 *h)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(h->state, start, sizeof start);
    h->length = 0;
}

void qm_sha256_update(qm_sha256 *h, const uint8_t *data, size_t len)
{
    const size_t have = (size_t)(h->length % 64);

    if (!len) return; /* an empty buffer may come with a null pointer, which memcpy must not see */
    h->length += len;
    if (have) {
        size_t take = 64 - have < len ? 64 - have : len;
        memcpy(h->block + have, data, take);
        if (have + take < 64) return;
        blocks(h->state, h->block, 1);
        data += take;
        len -= take;
    }
    if (len >= 64) {
        blocks(h->state, data, len / 64);
        data += len / 64 * 64;
        len %= 64;
    }
    if (len) memcpy(h->block, data, len);
}

void qm_sha256_final(qm_sha256 *h, uint8_t digest[32])
{
    const uint64_t bits = h->length * 8;
    size_t have = (size_t)(h->length % 64);

    h->block[have++] = 0x80;
    if (have > 56) {
        memset(h->block + have, 0, 64 - have);
        blocks(h->state, h->block, 1);
        have = 0;
    }
    memset(h->block + have, 0, 56 - have);
    qm_put_be64(h->block + 56, bits);
    blocks(h->state, h->block, 1);
    for (int i = 0; i < 8; i++) qm_put_be32(digest + 4 * i, h->state[i]);
}

void qm_hmac_init(qm_hmac *h, const uint8_t *key, size_t len)
{
    uint8_t pad[64] = {0};

    if (len > 64) {
        qm_sha256_init(&h->inner);
        qm_sha256_update(&h->inner, key, len);
        qm_sha256_final(&h->inner, pad);
    } else if (len) {
        memcpy(pad, key, len);
    }
    for (int i = 0; i < 64; i++) pad[i] ^= 0x36;
    qm_sha256_init(&h->inner);
    qm_sha256_update(&h->inner, pad, 64);
    for (int i = 0; i < 64; i++) pad[i] ^= 0x36 ^ 0x5c;
    qm_sha256_init(&h->outer);
    qm_sha256_update(&h->outer, pad, 64);
    qm_wipe(pad, sizeof pad);
}

void qm_hmac_update(qm_hmac *h, const uint8_t *data, size_t len) { qm_sha256_update(&h->inner, data, len); }

void qm_hmac_final(qm_hmac *h, uint8_t mac[32])
{
    uint8_t digest[32];

    qm_sha256_final(&h->inner, digest);
    qm_sha256_update(&h->outer, digest, 32);
    qm_sha256_final(&h->outer, mac);
    qm_wipe(h, sizeof *h);
    qm_wipe(digest, sizeof digest);
}
