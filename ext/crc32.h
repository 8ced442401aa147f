/* CRC-32 as zlib computes it (IEEE, reflected): frames need it of 12 bytes, objects of all their bytes. */
#ifndef QM_CRC32_H
#define QM_CRC32_H

#include <stddef.h>
#include <stdint.h>

enum { QM_CRC_PORTABLE, QM_CRC_CLMUL, QM_CRC_VCLMUL };

/* Build the tables and pick the widest level the processor has that is not above `limit`; returns it. Called at module
 * import before any other use, and again by tests. */
int qm_crc32_select(int limit);

/* The CRC of what `crc` is the CRC of, followed by `len` bytes; start with 0. */
uint32_t qm_crc32(uint32_t crc, const uint8_t *data, size_t len);

/* The CRC of two pieces in a row from the CRC of each; `len` is the length of the second. */
uint32_t qm_crc32_combine(uint32_t first, uint32_t second, uint64_t len);

#endif
