/* The all-or-nothing transform and the leaf digests of a segment that lies in shards (docs/erasure.md).
 *
 * Rule: shards are used where they are, in page buffers; a text runs from shard to shard without a gap. Nothing here
 * allocates, and no argument is checked: the module above did that.
 */
#ifndef QM_SEAL_H
#define QM_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "sha256_many.h"

#define QM_SHARDS 255
#define QM_CANARY 16

typedef struct {
    uint8_t *at[QM_SHARDS];
    size_t count, size; /* all shards have `size` bytes */
} qm_shards;

/* What there is to hash of one segment. */
typedef struct {
    qm_shards shards;
    size_t text;                    /* bytes; a text starts shard 0 */
    size_t columns;                 /* bytes at the start of each shard that may be hashed into its leaf */
    size_t blocks;                  /* of each leaf (0x00 || shard) that are hashed: all that are whole in `columns` */
    uint32_t leaf[QM_SHARDS][8], text_state[8];
    uint8_t digest[32];             /* SHA-256 of the text */
} qm_segment;

/* Encrypt plain || canary into the first k shards and zero the rest of them. */
void qm_seal_text(const qm_shards *shards, size_t k, const uint8_t key[32], const uint8_t *plain, size_t size,
                  const uint8_t canary[QM_CANARY]);

/* Write key XOR digest behind a text of `text` bytes. */
void qm_seal_key(const qm_shards *shards, size_t text, const uint8_t key[32], const uint8_t digest[32]);

/* Digests of the texts of all segments, and on the way what `columns` allow of their leaves. There must be room for a
 * stream for each segment and each shard. */
void qm_seal_digests(qm_segment *segments, size_t count, qm_stream *streams);

/* Complete the leaf digests from `blocks` and `leaf` on; there must be room for a stream for each shard. */
void qm_leaf_digests(qm_segment *segment, qm_stream *streams, uint8_t (*digest)[32]);

/* Undo qm_seal_text into `plain`, the key being what stands behind the text XOR the text's digest. Returns 0, or -1 if
 * the canary is not there; `plain` is then cleared. */
int qm_unseal(const qm_shards *shards, const uint8_t digest[32], uint8_t *plain, size_t size,
              const uint8_t canary[QM_CANARY]);

/* Digest trees: SHA-256(0x01 || left || right). */
void qm_tree_node(const uint8_t left[32], const uint8_t right[32], uint8_t out[32]);

#endif
