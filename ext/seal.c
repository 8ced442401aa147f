/* Sealing, unsealing and leaf digests over shards.
 *
 * The hash of a text is one chain and bound by latency, so the leaves are hashed in its gaps (sha256_lanes.h). Groups of
 * sixteen leaves take turns, each with an equal part of the chain; where there are no lanes, or few leaves, it goes by
 * twos.
 */
#include "seal.h"
#include "aes.h"
#include "sha256.h"
#include "sha256_lanes.h"
#include "wire.h"

#define WORTH 4 /* blocks per leaf below which the set-up is not worth it */

#define FULL 7  /* leaves from which sixteen lanes, though not all used, beat pairs */

static int level;

int qm_seal_select(int limit)
{
    const int best = qm_many_level();

    level = limit < best ? limit : best;
    return level;
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

/* Whole blocks of text that lie in one shard from *at on; a block across two shards is hashed here. 0 at the end. */
static size_t next_run(const qm_shards *s, qm_sha256 *h, size_t text, size_t *at, const uint8_t **from)
{
    size_t run = 0;

    *from = NULL;
    if (text - *at >= 64 && *at % s->size + 64 > s->size) {
        feed(s, h, *at, 64);
        *at += 64;
    }
    if (text - *at >= 64) *from = run_at(s, *at, text - *at, &run);
    return run / 64;
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
            size_t count;
            const uint8_t *from;
            size_t chained = next_run(s, h, text, at, &from);
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

/* The same two at a time: the text with one leaf after the other, then the leaves that are left with each other. */
static void hash_in_pairs(const qm_shards *s, size_t blocks, uint32_t (*leaf)[8], qm_sha256 *h, size_t text, size_t *at)
{
    size_t i = 0;

    for (; i < s->count; i++) {
        size_t left = blocks - 1, run = 1;
        while (left) {
            const uint8_t *from, *shard = s->at[i] + 63 + 64 * (blocks - 1 - left);
            run = next_run(s, h, text, at, &from);
            if (!run) break;
            if (run > left) run = left;
            qm_pair_blocks(h->state, from, leaf[i], shard, run);
            h->length += 64 * run;
            *at += 64 * run;
            left -= run;
        }
        if (!run) { /* the text is at its end; this leaf may have been begun */
            qm_sha256 alone;
            memcpy(alone.state, leaf[i], sizeof alone.state);
            alone.length = 64 * (blocks - left);
            if (left == blocks - 1) break;
            qm_sha256_update(&alone, s->at[i] + 64 * (blocks - left) - 1, 64 * left);
            memcpy(leaf[i], alone.state, sizeof alone.state);
        }
    }
    for (; i < s->count; i += 2) {
        uint32_t spare[8] = {0};
        const size_t other = i + 1 < s->count ? i + 1 : i;
        qm_pair_blocks(leaf[i], s->at[i] + 63, other > i ? leaf[other] : spare, s->at[other] + 63, blocks - 1);
    }
}

static void hash_together(const qm_shards *s, size_t blocks, uint32_t (*leaf)[8], qm_sha256 *h, size_t text, size_t *at)
{
    for (size_t i = 0; i < s->count; i++) start_leaf(s->at[i], leaf[i]);
    if (level == QM_MANY_LANES && s->count >= FULL) hash_in_lanes(s, blocks, leaf, h, text, at);
    else hash_in_pairs(s, blocks, leaf, h, text, at);
}

/* Whole blocks of a leaf within `columns` of its shard; the first has 63 bytes of it. */
static size_t whole_blocks(size_t columns) { return (columns + 1) / 64; }

size_t qm_seal_digest(const qm_shards *shards, size_t text, size_t columns, uint8_t digest[32], uint32_t (*leaf)[8])
{
    const size_t blocks = whole_blocks(columns);
    size_t at = 0, done = 0;
    qm_sha256 h;

    qm_sha256_init(&h);
    if (level && blocks > WORTH) {
        hash_together(shards, blocks, leaf, &h, text, &at);
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

    if (!blocks && level && whole > WORTH && shards->count > 1) {
        qm_sha256_init(&h);
        hash_together(shards, whole, leaf, &h, 0, &none);
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
