/* Big-endian and little-endian loads and stores, and the wipe of secrets.
 *
 * Rule: every multi-byte access to wire bytes goes through these functions, so alignment and byte order are
 * decided in one place. memcpy of a constant size compiles to a single move on every compiler we support.
 */
#ifndef QM_WIRE_H
#define QM_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void qm_put_be16(uint8_t *p, uint32_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }

static inline void qm_put_be32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24); p[1] = (uint8_t)(v >> 16); p[2] = (uint8_t)(v >> 8); p[3] = (uint8_t)v;
}

static inline void qm_put_be64(uint8_t *p, uint64_t v)
{
    qm_put_be32(p, (uint32_t)(v >> 32));
    qm_put_be32(p + 4, (uint32_t)v);
}

static inline uint32_t qm_get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t qm_get_be64(const uint8_t *p)
{
    return (uint64_t)qm_get_be32(p) << 32 | qm_get_be32(p + 4);
}

/* Little-endian 64-bit words: bit n of the value is bit n%8 of byte n/8, the order of the bit interleave. */
static inline uint64_t qm_get_le64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

static inline void qm_put_le64(uint8_t *p, uint64_t v)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    memcpy(p, &v, 8);
}

/* Clear key material. The barrier keeps the compiler from dropping stores to memory that is about to die. */
static inline void qm_wipe(void *p, size_t n)
{
#if defined(__GNUC__)
    memset(p, 0, n);
    __asm__ __volatile__("" : : "r"(p) : "memory");
#else
    volatile uint8_t *q = (volatile uint8_t *)p;
    while (n--) *q++ = 0;
#endif
}

/* Compare secrets: the time depends on n alone. */
static inline int qm_equal(const uint8_t *a, const uint8_t *b, size_t n)
{
    volatile uint8_t differ = 0;
    for (size_t i = 0; i < n; i++) differ |= a[i] ^ b[i];
    return differ == 0;
}

#endif
