/* Which x86-64 instruction sets may be used, asked once at module import.
 *
 * Rule: an AVX level counts only if the operating system saves its registers (XGETBV), and PEXT/PDEP only where
 * they are instructions and not microcode (AMD before family 19h needs hundreds of cycles for one).
 * QMAIL_SCALAR builds, other compilers and other architectures leave QM_X86 undefined: the portable code runs.
 */
#ifndef QM_CPU_X86_H
#define QM_CPU_X86_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(QMAIL_SCALAR)
#define QM_X86 1

#include <cpuid.h>
#include <stdint.h>

#define QM_TARGET(sets) __attribute__((target(sets)))
#define QM_INLINE inline __attribute__((always_inline))

enum {
    QM_CPU_AESNI = 1,    /* AES-NI with SSSE3 and SSE4.1 */
    QM_CPU_VAES256 = 2,  /* VAES on 256-bit registers */
    QM_CPU_VAES512 = 4,  /* VAES on 512-bit registers, with AVX-512 F, BW, VL */
    QM_CPU_SHANI = 8,    /* SHA extensions with SSSE3 and SSE4.1 */
    QM_CPU_BMI2 = 16,    /* AVX2 and a fast PEXT/PDEP */
    QM_CPU_BITS512 = 32, /* AVX-512 F, BW, VL, VBMI and GFNI */
    QM_CPU_CLMUL = 64,   /* PCLMULQDQ with SSE4.1 */
    QM_CPU_VCLMUL512 = 128, /* VPCLMULQDQ on 512-bit registers, with AVX-512 F, BW, VL */
    QM_CPU_AVX512 = 256  /* AVX-512 F, BW, VL */
};

static inline uint64_t qm_xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static inline unsigned qm_cpu(void)
{
    unsigned a, b, c, d, found = 0;
    unsigned family, amd, ssse3, ymm = 0, zmm = 0, avx512;

    if (!__get_cpuid(0, &a, &b, &c, &d)) return 0;
    amd = b == 0x68747541u || b == 0x6f677948u;               /* "Auth"enticAMD, "Hygo"nGenuine */
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    family = (a >> 8 & 15) == 15 ? 15 + (a >> 20 & 255) : (a >> 8 & 15);
    ssse3 = (c >> 9 & 1) && (c >> 19 & 1);
    if (ssse3 && (c >> 25 & 1)) found |= QM_CPU_AESNI;
    if (ssse3 && (c >> 1 & 1)) found |= QM_CPU_CLMUL;
    if ((c >> 27 & 1) && (c >> 28 & 1)) {                      /* OSXSAVE and AVX */
        uint64_t saved = qm_xcr0();
        ymm = (saved & 6) == 6;
        zmm = (saved & 0xe6) == 0xe6;
    }
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
    if (ssse3 && (b >> 29 & 1)) found |= QM_CPU_SHANI;
    ymm = ymm && (b >> 5 & 1);                                 /* AVX2 */
    avx512 = zmm && ymm && (b >> 16 & 1) && (b >> 30 & 1) && (b >> 31 & 1);
    if (ymm && (b >> 8 & 1) && !(amd && family < 0x19)) found |= QM_CPU_BMI2;
    if ((found & QM_CPU_AESNI) && ymm && (c >> 9 & 1)) found |= QM_CPU_VAES256;
    if ((found & QM_CPU_VAES256) && avx512) found |= QM_CPU_VAES512;
    if (avx512) found |= QM_CPU_AVX512;
    if (avx512 && (found & QM_CPU_CLMUL) && (c >> 10 & 1)) found |= QM_CPU_VCLMUL512;
    if (avx512 && (c >> 1 & 1) && (c >> 8 & 1)) found |= QM_CPU_BITS512;
    return found;
}

#endif
#endif
