/* CRC-32 four bytes per step from four tables.
 *
 * Rule: same value as zlib.crc32(data). The only caller hashes 12 bytes, where three table steps beat the set-up of
 * a carry-less multiplication; bulk checksums belong to zlib.
 */
#include "crc32.h"

static uint32_t table[4][256];

void qm_crc32_init(void)
{
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t c = n;
        for (int bit = 0; bit < 8; bit++) c = c >> 1 ^ (0xedb88320u & (0u - (c & 1)));
        table[0][n] = c;
    }
    for (int t = 1; t < 4; t++)
        for (uint32_t n = 0; n < 256; n++) table[t][n] = table[t - 1][n] >> 8 ^ table[0][table[t - 1][n] & 255];
}

uint32_t qm_crc32(const uint8_t *p, size_t len)
{
    uint32_t c = 0xffffffffu;
    for (; len >= 4; p += 4, len -= 4)
        c = table[3][(c ^ p[0]) & 255] ^ table[2][(c >> 8 ^ p[1]) & 255] ^ table[1][(c >> 16 ^ p[2]) & 255]
            ^ table[0][(c >> 24 ^ p[3]) & 255];
    while (len--) c = c >> 8 ^ table[0][(c ^ *p++) & 255];
    return ~c;
}
