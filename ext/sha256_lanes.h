/* SHA-256 of sixteen messages side by side, with one more message hashed between their rounds. */
#ifndef QM_SHA256_LANES_H
#define QM_SHA256_LANES_H

#include <stddef.h>
#include <stdint.h>

#define QM_LANES 16

typedef uint32_t qm_lanes[8][QM_LANES]; /* word i of all states, then word i + 1 */

/* 1 if the processor has what the function below needs (AVX-512 and the SHA instructions). */
int qm_lanes_usable(void);

/* Hash `count` blocks of 64 bytes of each of sixteen messages, and `chained` <= 16 * count blocks of one message more,
 * whose state is `chain`. The inputs may be the same memory; nothing is written but the states. */
void qm_lanes_blocks(qm_lanes state, const uint8_t *const lane[QM_LANES], size_t count, uint32_t chain[8],
                     const uint8_t *text, size_t chained);

#endif
