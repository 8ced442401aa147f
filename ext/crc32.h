/* CRC-32 as zlib computes it (IEEE, reflected), for the 12 challenge bytes of a frame. */
#ifndef QM_CRC32_H
#define QM_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Build the tables; called once at module import, before any other use. */
void qm_crc32_init(void);

uint32_t qm_crc32(const uint8_t *data, size_t len);

#endif
