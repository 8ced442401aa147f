/* SHA-256 (FIPS 180-4) with the x86 SHA instructions or in portable C, and HMAC (RFC 2104) on top.
 *
 * Rule: no branch and no index depends on the data in either version, and HMAC state is wiped when it is finished.
 */
#include "sha256.h"
#include "cpu_x86.h"
#include "wire.h"

const uint32_t qm_sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

#define K qm_sha256_k

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

#include "sha256_ni.h"

QM_SHA static void blocks_ni(uint32_t state[8], const uint8_t *data, size_t count)
{
    qm_ni_state s = qm_ni_open(state);

    for (; count--; data += 64) s = qm_ni_block(s, data);
    qm_ni_close(s, state);
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

void qm_sha256_blocks(uint32_t state[8], const uint8_t *data, size_t count)
{
    if (use_ni) blocks_ni(state, data, count);
    else blocks_portable(state, data, count);
}

void qm_sha256_start(uint32_t state[8])
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(state, start, sizeof start);
}

void qm_sha256_init(qm_sha256 *h)
{
    qm_sha256_start(h->state);
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
        qm_sha256_blocks(h->state, h->block, 1);
        data += take;
        len -= take;
    }
    if (len >= 64) {
        qm_sha256_blocks(h->state, data, len / 64);
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
        qm_sha256_blocks(h->state, h->block, 1);
        have = 0;
    }
    memset(h->block + have, 0, 56 - have);
    qm_put_be64(h->block + 56, bits);
    qm_sha256_blocks(h->state, h->block, 1);
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
