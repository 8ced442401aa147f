/* Which of many SHA-256 messages is hashed when, and HMAC of many.
 *
 * Rule: no lane and no chain idles while there is a message it could take. To cut a message between two blocks costs
 * next to nothing, so the lanes are filled by McNaughton's rule: lay all messages end to end and cut the line into
 * sixteen equal parts; one cut in two is begun in the one lane before the other lane comes to it, since none is longer
 * than a part. Chains take what has most left.
 */
#include "sha256_many.h"
#include "sha256.h"
#include "sha256_lanes.h"
#include "wire.h"

#define WORTH 12    /* streams at a time from which a step of the lanes (720 cycles) beats pairs (84 a block) */
#define QUANTUM 64  /* blocks after which pairs are chosen anew */
#define GROUP 32    /* messages of HMAC at a time */

static int level;

int qm_many_select(int limit)
{
    const int best = qm_many_level();

    level = limit < best ? limit : best;
    return level;
}

int qm_many_helps(void) { return level != QM_MANY_NONE; }

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static void advance(qm_stream *s, size_t blocks)
{
    s->at += 64 * blocks;
    s->run -= blocks;
    s->left -= blocks;
}

/* The two streams with most left, null where there are not so many. */
static void longest(qm_stream *s, size_t count, qm_stream **first, qm_stream **second)
{
    *first = *second = NULL;
    for (qm_stream *end = s + count; s < end; s++) {
        if (!s->run && s->left) s->more(s);
        if (!s->left) continue;
        if (!*first || s->left > (*first)->left) {
            *second = *first;
            *first = s;
        } else if (!*second || s->left > (*second)->left) {
            *second = s;
        }
    }
}

static void in_pairs(qm_stream *s, size_t count)
{
    for (;;) {
        qm_stream *a, *b;
        longest(s, count, &a, &b);
        if (!a) return;
        if (!b || level == QM_MANY_NONE) {
            qm_sha256_blocks(a->state, a->at, a->run);
            advance(a, a->run);
        } else {
            const size_t blocks = least(QUANTUM, least(a->run, b->run));
            qm_pair_blocks(a->state, a->at, b->state, b->at, blocks);
            advance(a, blocks);
            advance(b, blocks);
        }
    }
}

/* Blocks of the texts that go with `*step` blocks of the lanes, of which `rest` are to come; both fewer if a text is
 * interrupted before. */
static size_t share_of(qm_stream *s, size_t texts, size_t rest, size_t *step, qm_stream **a, qm_stream **b)
{
    size_t total = 0, pairs, run, blocks;

    longest(s, texts, a, b);
    if (!*a) return 0;
    for (size_t i = 0; i < texts; i++) total += s[i].left;
    pairs = (total + 1) / 2 > (*a)->left ? (total + 1) / 2 : (*a)->left;
    run = *b ? least((*a)->run, (*b)->run) : (*a)->run;
    blocks = (pairs * *step + rest - 1) / rest;
    if (blocks > run) {
        blocks = run;
        *step = least(*step, (run * rest + pairs - 1) / pairs);
    }
    return least(blocks, 16 * *step);
}

/* `part` blocks for each lane, of the streams behind the texts. */
static void in_lanes(qm_stream *s, size_t texts, size_t count, size_t part)
{
    qm_stream *now[QM_LANES], *const end = s + count, *next = s + texts;
    size_t piece[QM_LANES], start = 0; /* of `next`, on the line of all */
    uint32_t spare[8] = {0};

    for (size_t i = 0; i < QM_LANES; i++) {
        for (; next < end && start + next->left <= i * part; next++) start += next->left;
        now[i] = next;
        piece[i] = next < end ? start + next->left - i * part : 0;
    }
    for (size_t rest = part, step; rest; rest -= step) {
        const uint8_t *lane[QM_LANES];
        uint32_t *state[QM_LANES];
        qm_stream *a, *b;
        size_t blocks;

        step = rest;
        for (size_t i = 0; i < QM_LANES; i++) {
            const int idle = now[i] == end;
            state[i] = idle ? spare : now[i]->state;
            lane[i] = idle ? now[0]->at : now[i]->at; /* the first lane is never idle */
            if (!idle) step = least(step, piece[i]);
        }
        blocks = share_of(s, texts, rest, &step, &a, &b);
        qm_lanes_blocks(state, lane, step, a ? a->state : NULL, a ? a->at : NULL, b ? b->state : NULL, b ? b->at : NULL,
                        blocks);
        if (a) advance(a, blocks);
        if (b) advance(b, blocks);
        for (size_t i = 0; i < QM_LANES; i++) {
            if (now[i] == end) continue;
            advance(now[i], step);
            piece[i] -= step;
        }
        for (size_t i = 0; i < QM_LANES; i++) {
            if (now[i] == end || piece[i] || rest == step) continue;
            do now[i]++; while (now[i] < end && !now[i]->left);
            if (now[i] < end) piece[i] = now[i]->left;
        }
    }
}

void qm_many_blocks(qm_stream *streams, size_t texts, size_t count)
{
    size_t total = 0, all = 0, part = 0;

    for (size_t i = 0; i < count; i++) {
        all += streams[i].left;
        if (i < texts) continue;
        total += streams[i].left;
        if (streams[i].left > part) part = streams[i].left;
    }
    if (part < (total + QM_LANES - 1) / QM_LANES) part = (total + QM_LANES - 1) / QM_LANES;
    if (level == QM_MANY_LANES && part && all >= WORTH * part) in_lanes(streams, texts, count, part);
    in_pairs(streams, count);
}

/* ---- HMAC (RFC 2104) */

typedef struct {
    uint32_t inner[8], outer[8];
    uint8_t block[128]; /* the two padded keys, the end of the message, then its digest */
} work;

static void one_block(qm_stream *s, uint32_t state[8], const uint8_t *at, size_t blocks)
{
    *s = (qm_stream){state, at, blocks, blocks, NULL, NULL, 0};
}

/* Pad a message that ends with `have` bytes of an unfinished block; gives its blocks, 1 or 2. */
static size_t pad(uint8_t *block, size_t have, uint64_t size)
{
    const size_t blocks = have < 56 ? 1 : 2;

    block[have] = 0x80;
    memset(block + have + 1, 0, 64 * blocks - 8 - have - 1);
    qm_put_be64(block + 64 * blocks - 8, 8 * size);
    return blocks;
}

static void hmac_group(const qm_hmac_job *jobs, size_t count)
{
    work w[GROUP];
    qm_stream s[2 * GROUP];

    for (size_t i = 0; i < count; i++) {
        memset(w[i].block, 0x36, 64);
        memset(w[i].block + 64, 0x5c, 64);
        for (size_t byte = 0; byte < 32; byte++) {
            w[i].block[byte] ^= jobs[i].key[byte];
            w[i].block[64 + byte] ^= jobs[i].key[byte];
        }
        qm_sha256_start(w[i].inner);
        qm_sha256_start(w[i].outer);
        one_block(s + 2 * i, w[i].inner, w[i].block, 1);
        one_block(s + 2 * i + 1, w[i].outer, w[i].block + 64, 1);
    }
    qm_many_blocks(s, 0, 2 * count);
    for (size_t i = 0; i < count; i++) one_block(s + i, w[i].inner, jobs[i].data, jobs[i].size / 64);
    qm_many_blocks(s, 0, count);
    for (size_t i = 0; i < count; i++) {
        const size_t have = jobs[i].size % 64;
        if (have) memcpy(w[i].block, jobs[i].data + jobs[i].size - have, have);
        one_block(s + i, w[i].inner, w[i].block, pad(w[i].block, have, 64 + jobs[i].size));
    }
    qm_many_blocks(s, 0, count);
    for (size_t i = 0; i < count; i++) {
        for (int word = 0; word < 8; word++) qm_put_be32(w[i].block + 4 * word, w[i].inner[word]);
        one_block(s + i, w[i].outer, w[i].block, pad(w[i].block, 32, 64 + 32));
    }
    qm_many_blocks(s, 0, count);
    for (size_t i = 0; i < count; i++)
        for (int word = 0; word < 8; word++) qm_put_be32(jobs[i].mac + 4 * word, w[i].outer[word]);
    qm_wipe(w, count * sizeof *w);
}

void qm_hmac_many(const qm_hmac_job *jobs, size_t count)
{
    for (size_t group; count; jobs += group, count -= group) {
        group = least(count, GROUP);
        hmac_group(jobs, group);
    }
}
