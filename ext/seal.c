/* Sealing, unsealing and digests over shards.
 *
 * The hash of a text is one chain and bound by latency: the texts of several segments are hashed in each other's gaps,
 * and all leaves in theirs (sha256_many.h).
 */
#include "seal.h"
#include "aes.h"
#include "sha256.h"
#include "wire.h"

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
    for (size_t i = 0, at = text; i < 32; i++, at++)
        shards->at[at / shards->size][at % shards->size] = key[i] ^ digest[i];
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

/* `len` bytes of the text from byte `at` on. */
static void copy_out(const qm_shards *s, size_t at, uint8_t *out, size_t len)
{
    for (size_t run; len; at += run, out += run, len -= run) {
        const uint8_t *from = run_at(s, at, len, &run);
        memcpy(out, from, run);
    }
}

/* The next whole blocks of a text that lie in one shard; a block across two shards is hashed here. */
static void more_text(qm_stream *s)
{
    const qm_shards *shards = s->from;
    uint8_t block[64];

    for (; s->left; s->left--, s->place += 64) {
        size_t run;
        s->at = run_at(shards, s->place, 64 * s->left, &run);
        s->run = run / 64;
        s->place += 64 * s->run;
        if (s->run) return;
        copy_out(shards, s->place, block, 64);
        qm_sha256_blocks(s->state, block, 1);
    }
}

/* Whole blocks of a leaf within `columns` of its shard; the first has 63 bytes of it. */
static size_t whole_blocks(size_t columns) { return (columns + 1) / 64; }

/* Begin all leaves, and a stream for what of them lies in `columns`; gives the streams. */
static size_t start_leaves(qm_segment *segment, qm_stream *streams)
{
    const qm_shards *s = &segment->shards;

    segment->blocks = whole_blocks(segment->columns);
    if (!segment->blocks) return 0;
    for (size_t i = 0; i < s->count; i++) {
        const size_t left = segment->blocks - 1;
        start_leaf(s->at[i], segment->leaf[i]);
        streams[i] = (qm_stream){segment->leaf[i], s->at[i] + 63, left, left, NULL, NULL, 0};
    }
    return s->count;
}

void qm_seal_digests(qm_segment *segments, size_t count, qm_stream *streams)
{
    size_t used = count;

    for (size_t i = 0; i < count; i++) {
        qm_segment *s = segments + i;
        qm_sha256_start(s->text_state);
        streams[i] = (qm_stream){s->text_state, NULL, 0, s->text / 64, more_text, &s->shards, 0};
        used += start_leaves(s, streams + used);
    }
    qm_many_blocks(streams, count, used);
    for (size_t i = 0; i < count; i++) {
        qm_segment *s = segments + i;
        uint8_t rest[64];
        qm_sha256 h;
        memcpy(h.state, s->text_state, sizeof h.state);
        h.length = s->text / 64 * 64;
        copy_out(&s->shards, h.length, rest, s->text % 64);
        qm_sha256_update(&h, rest, s->text % 64);
        qm_sha256_final(&h, s->digest);
    }
}

void qm_leaf_digests(qm_segment *segment, qm_stream *streams, uint8_t (*digest)[32])
{
    static const uint8_t prefix = 0;
    const qm_shards *s = &segment->shards;

    if (!segment->blocks) {
        segment->columns = s->size;
        qm_many_blocks(streams, 0, start_leaves(segment, streams));
    }
    for (size_t i = 0; i < s->count; i++) {
        const size_t at = segment->blocks ? 64 * segment->blocks - 1 : 0;
        qm_sha256 h;
        qm_sha256_init(&h);
        if (at) {
            memcpy(h.state, segment->leaf[i], sizeof h.state);
            h.length = 64 * segment->blocks;
        } else {
            qm_sha256_update(&h, &prefix, 1);
        }
        qm_sha256_update(&h, s->at[i] + at, s->size - at);
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

    for (size_t i = 0, at = text; i < 32; i++, at++)
        key[i] = digest[i] ^ shards->at[at / shards->size][at % shards->size];
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
