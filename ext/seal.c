/* Sealing, unsealing and leaf digests over shards.
 *
 * The hash of a text is one chain and bound by latency, so the leaves are hashed in its gaps (sha256_lanes.h). Groups of
 * sixteen leaves take turns; each gets an equal part of the chain.
 */
#include "seal.h"
#include "aes.h"
#include "sha256.h"
#include "sha256_lanes.h"
#include "wire.h"

#define WORTH 4 /* blocks per leaf below which the lanes are not worth their set-up */

static int lanes;

int qm_seal_select(int want)
{
    lanes = want && qm_lanes_usable();
    return lanes;
}

/* Bytes [from, from + len) of a stream in counter mode that starts at block 0, without the blocks before. */
static void ctr_part(const qm_aes_key *key, size_t from, const uint8_t *in, uint8_t *out, size_t len)
{
    uint8_t counter[16] = {0}, block[16] = {0};
    const size_t skip = from % 16;

    qm_put_be64(counter + 8, from / 16);
    if (skip && len) {
        const size_t part = 16 - skip < len ? 16 - skip : len;
        qm_aes_ctr(key, counter, block, block, 16);
        for (size_t i = 0; i < part; i++) out[i] = in[i] ^ block[skip + i];
        in += part;
        out += part;
        len -= part;
        qm_wipe(block, sizeof block);
    }
    if (len) qm_aes_ctr(key, counter, in, out, len);
}

/* The run of text at byte `at`: *run bytes up to the end of its shard, at most `left`. */
static uint8_t *run_at(const qm_shards *s, size_t at, size_t left, size_t *run)
{
    const size_t column = at % s->size;

    *run = s->size - column < left ? s->size - column : left;
    return s->at[at / s->size] + column;
}

static void crypt_in(const qm_shards *s, const qm_aes_key *key, size_t at, const uint8_t *in, size_t len)
{
    for (size_t run; len; at += run, in += run, len -= run) {
        uint8_t *to = run_at(s, at, len, &run);
        ctr_part(key, at, in, to, run);
    }
}

static void crypt_out(const qm_shards *s, const qm_aes_key *key, size_t at, uint8_t *out, size_t len)
{
    for (size_t run; len; at += run, out += run, len -= run) {
        const uint8_t *from = run_at(s, at, len, &run);
        ctr_part(key, at, from, out, run);
    }
}

void qm_seal_text(const qm_shards *shards, size_t k, const uint8_t key[32], const uint8_t *plain, size_t size,
                  const uint8_t canary[QM_CANARY])
{
    qm_aes_key schedule;
    size_t at = size + QM_CANARY;

    qm_aes_expand(&schedule, key, 32);
    crypt_in(shards, &schedule, 0, plain, size);
    crypt_in(shards, &schedule, size, canary, QM_CANARY);
    qm_wipe(&schedule, sizeof schedule);
    for (size_t run, left = k * shards->size - at; left; at += run, left -= run) {
        uint8_t *to = run_at(shards, at, left, &run);
        memset(to, 0, run);
    }
}

void qm_seal_key(const qm_shards *shards, size_t text, const uint8_t key[32], const uint8_t digest[32])
{
    for (size_t i = 0; i < 32; i++) shards->at[(text + i) / shards->size][(text + i) % shards->size] = key[i] ^ digest[i];
}

/* ---- hashing */

static void start_leaf(const uint8_t *shard, uint32_t state[8])
{
    static const uint8_t prefix = 0;
    qm_sha256 h;

    qm_sha256_init(&h);
    qm_sha256_update(&h, &prefix, 1);
    qm_sha256_update(&h, shard, 63);
    memcpy(state, h.state, sizeof h.state);
}

static void feed(const qm_shards *s, qm_sha256 *h, size_t at, size_t left)
{
    for (size_t run; left; at += run, left -= run) {
        const uint8_t *from = run_at(s, at, left, &run);
        qm_sha256_update(h, from, run);
    }
}

/* Blocks 1 .. blocks - 1 of all leaves, and of the text as much as goes with them in whole blocks; *at moves on. */
static void hash_in_lanes(const qm_shards *s, size_t blocks, uint32_t (*leaf)[8], qm_sha256 *h, size_t text, size_t *at)
{
    const size_t groups = (s->count + QM_LANES - 1) / QM_LANES, most = groups * (blocks - 1);
    size_t done = 0;

    for (size_t g = 0; g < groups; g++) {
        qm_lanes state;
        const uint8_t *lane[QM_LANES];

        for (size_t i = 0; i < QM_LANES; i++) { /* spare lanes repeat the last shard */
            const size_t n = g * QM_LANES + i < s->count ? g * QM_LANES + i : s->count - 1;
            lane[i] = s->at[n] + 63;
            for (size_t word = 0; word < 8; word++) state[word][i] = leaf[n][word];
        }
        for (size_t left = blocks - 1; left;) {
            /* as many blocks of the text as the shard it is in still has, and as many of the lanes as is their share */
            size_t run = 0, chained, count;
            const uint8_t *from = NULL;
            if (*at < text) {
                if (h->length % 64 || *at % s->size + 64 > s->size) { /* a block across two shards */
                    const size_t piece = 64 - h->length % 64 < text - *at ? 64 - h->length % 64 : text - *at;
                    feed(s, h, *at, piece);
                    *at += piece;
                }
                if (*at < text) from = run_at(s, *at, text - *at, &run);
            }
            chained = run / 64;
            if (!chained) {
                count = left; /* what is left of the text is less than a block */
            } else {
                const size_t rest = (text - *at) / 64; /* whole blocks of text still to come, at least `chained` */
                count = (chained * (most - done) + rest - 1) / rest;
                if (count > left) { /* the group ends within this shard */
                    chained = chained * left / count;
                    count = left;
                }
                if (chained > 16 * count) chained = 16 * count;
            }
            qm_lanes_blocks(state, lane, count, h->state, from, chained);
            h->length += 64 * chained;
            *at += 64 * chained;
            for (size_t i = 0; i < QM_LANES; i++) lane[i] += 64 * count;
            left -= count;
            done += count;
        }
        for (size_t i = 0; i < QM_LANES && g * QM_LANES + i < s->count; i++)
            for (size_t word = 0; word < 8; word++) leaf[g * QM_LANES + i][word] = state[word][i];
    }
}

/* Whole blocks of a leaf within `columns` of its shard; the first has 63 bytes of it. */
static size_t whole_blocks(size_t columns) { return (columns + 1) / 64; }

size_t qm_seal_digest(const qm_shards *shards, size_t text, size_t columns, uint8_t digest[32], uint32_t (*leaf)[8])
{
    const size_t blocks = whole_blocks(columns);
    size_t at = 0, done = 0;
    qm_sha256 h;

    qm_sha256_init(&h);
    if (lanes && blocks > WORTH) {
        for (size_t i = 0; i < shards->count; i++) start_leaf(shards->at[i], leaf[i]);
        hash_in_lanes(shards, blocks, leaf, &h, text, &at);
        done = blocks;
    }
    feed(shards, &h, at, text - at);
    qm_sha256_final(&h, digest);
    return done;
}

void qm_leaf_digests(const qm_shards *shards, size_t blocks, uint32_t (*leaf)[8], uint8_t (*digest)[32])
{
    static const uint8_t prefix = 0;
    const size_t whole = whole_blocks(shards->size);
    size_t none = 0;
    qm_sha256 h;

    if (!blocks && lanes && whole > WORTH && shards->count > 2) {
        qm_sha256_init(&h);
        for (size_t i = 0; i < shards->count; i++) start_leaf(shards->at[i], leaf[i]);
        hash_in_lanes(shards, whole, leaf, &h, 0, &none);
        blocks = whole;
    }
    for (size_t i = 0; i < shards->count; i++) {
        size_t at = 0;
        qm_sha256_init(&h);
        if (blocks) {
            memcpy(h.state, leaf[i], sizeof h.state);
            h.length = 64 * blocks;
            at = 64 * blocks - 1;
        } else {
            qm_sha256_update(&h, &prefix, 1);
        }
        qm_sha256_update(&h, shards->at[i] + at, shards->size - at);
        qm_sha256_final(&h, digest[i]);
    }
}

int qm_unseal(const qm_shards *shards, const uint8_t digest[32], uint8_t *plain, size_t size,
              const uint8_t canary[QM_CANARY])
{
    const size_t text = size + QM_CANARY;
    qm_aes_key schedule;
    uint8_t key[32], found[QM_CANARY];
    int good;

    for (size_t i = 0; i < 32; i++) key[i] = digest[i] ^ shards->at[(text + i) / shards->size][(text + i) % shards->size];
    qm_aes_expand(&schedule, key, 32);
    crypt_out(shards, &schedule, 0, plain, size);
    crypt_out(shards, &schedule, size, found, QM_CANARY);
    qm_wipe(&schedule, sizeof schedule);
    qm_wipe(key, sizeof key);
    good = qm_equal(found, canary, QM_CANARY);
    if (!good && size) memset(plain, 0, size);
    return good ? 0 : -1;
}

void qm_tree_node(const uint8_t left[32], const uint8_t right[32], uint8_t out[32])
{
    static const uint8_t prefix = 1;
    qm_sha256 h;

    qm_sha256_init(&h);
    qm_sha256_update(&h, &prefix, 1);
    qm_sha256_update(&h, left, 32);
    qm_sha256_update(&h, right, 32);
    qm_sha256_final(&h, out);
}
