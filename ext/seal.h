/* The all-or-nothing transform and the leaf digests of a segment that lies in shards (docs/erasure.md).
 *
 * Rule: shards are used where they are, in page buffers; a text runs from shard to shard without a gap. Nothing here
 * allocates, and no argument is checked: the module above did that.
 */
#ifndef QM_SEAL_H
#define QM_SEAL_H

#include <stddef.h>
#include <stdint.h>

#define QM_SHARDS 255
#define QM_CANARY 16

typedef struct {
    uint8_t *at[QM_SHARDS];
    size_t count, size; /* all shards have `size` bytes */
} qm_shards;

/* How leaves are hashed: QM_MANY_NONE, one after the other, or the better of what the processor has that is not above
 * `limit` (sha256_lanes.h); returns it. */
int qm_seal_select(int limit);

/* Encrypt plain || canary into the first k shards and zero the rest of them. */
void qm_seal_text(const qm_shards *shards, size_t k, const uint8_t key[32], const uint8_t *plain, size_t size,
                  const uint8_t canary[QM_CANARY]);

/* Write key XOR digest behind a text of `text` bytes. */
void qm_seal_key(const qm_shards *shards, size_t text, const uint8_t key[32], const uint8_t digest[32]);

/* SHA-256 of the first `text` bytes. On the way, hash whole blocks of every leaf (0x00 || shard) that lie in the first
 * `columns` of the shards, into 8 words per shard; returns how many blocks of each, 0 if there was no gain in it. */
size_t qm_seal_digest(const qm_shards *shards, size_t text, size_t columns, uint8_t digest[32], uint32_t (*leaf)[8]);

/* Complete the leaf digests from `blocks` blocks on; `leaf` holds the states so far and is not read if blocks is 0. */
void qm_leaf_digests(const qm_shards *shards, size_t blocks, uint32_t (*leaf)[8], uint8_t (*digest)[32]);

/* Undo qm_seal_text into `plain`, the key being what stands behind the text XOR the text's digest. Returns 0, or -1 if
 * the canary is not there; `plain` is then cleared. */
int qm_unseal(const qm_shards *shards, const uint8_t digest[32], uint8_t *plain, size_t size,
              const uint8_t canary[QM_CANARY]);

/* Digest trees: SHA-256(0x01 || left || right). */
void qm_tree_node(const uint8_t left[32], const uint8_t right[32], uint8_t out[32]);

#endif
