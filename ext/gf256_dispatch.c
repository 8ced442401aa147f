/*
 * GF(256): the tables, and the choice of the kernel set for this CPU.
 *
 * The choice is a plain pointer set once at import from CPUID leaf 7 and XGETBV: no ifunc (not on musl or macOS) and no
 * compiler CPU-test builtin (they disagree about GFNI). An AVX level counts only if the system saves its registers.
 */
#include "gf256.h"

#include <string.h>

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#define GF_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

gf256_tables gf256_table;

static const gf256_kernels *levels[GF256_LEVELS];
static int level_count;
static const gf256_kernels *active;
static size_t stream_limit = (size_t)32 << 20;

static void fill_tables(void)
{
    gf256_tables *t = &gf256_table;
    unsigned x = 1;
    for (int i = 0; i < 255; i++) {
        t->exp[i] = t->exp[i + 255] = t->exp[i + 510] = (uint8_t)x;
        t->log[x] = (uint8_t)i;
        x = x << 1 ^ (x >> 7) * 0x11D;
    }
    for (int c = 0; c < 256; c++) {
        uint64_t matrix = 0;
        for (int i = 0; i < 8; i++) t->basis[c][i] = gf256_mul((uint8_t)c, (uint8_t)(1 << i));
        for (int i = 0; i < 16; i++) {
            t->nibble[c][i] = gf256_mul((uint8_t)c, (uint8_t)i);
            t->nibble[c][16 + i] = gf256_mul((uint8_t)c, (uint8_t)(i << 4));
        }
        /* output bit i is the parity of matrix byte 7 - i masked by the input: row i, column j = bit i of c * 2^j */
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < 8; j++) matrix |= (uint64_t)(t->basis[c][j] >> i & 1) << (8 * (7 - i) + j);
        t->affine[c] = matrix;
    }
}

static void offer(const gf256_kernels *level, int able)
{
    if (level && able)
        levels[level_count++] = level;
}

#ifdef GF_X86
typedef struct {
    uint32_t a, b, c, d;
} cpuid_words;

static cpuid_words cpuid(uint32_t leaf, uint32_t subleaf)
{
    cpuid_words w = {0, 0, 0, 0};
#if defined(_MSC_VER)
    int r[4];
    __cpuid(r, (int)(leaf & 0x80000000));
    if ((uint32_t)r[0] >= leaf) {
        __cpuidex(r, (int)leaf, (int)subleaf);
        w.a = (uint32_t)r[0], w.b = (uint32_t)r[1], w.c = (uint32_t)r[2], w.d = (uint32_t)r[3];
    }
#else
    __get_cpuid_count(leaf, subleaf, &w.a, &w.b, &w.c, &w.d);
#endif
    return w;
}

/* bytes of the largest cache that CPUID describes, 0 if it describes none; Intel and AMD use two leaves, one form */
static size_t last_cache(void)
{
    size_t most = 0;
    for (uint32_t leaf = 4; leaf; leaf = leaf == 4 ? 0x8000001D : 0)
        for (uint32_t i = 0; i < 8; i++) {
            const cpuid_words w = cpuid(leaf, i);
            if (!(w.a & 31))
                break;
            const size_t ways = (w.b >> 22) + 1, parts = (w.b >> 12 & 1023) + 1, line = (w.b & 4095) + 1;
            const size_t size = ways * parts * line * ((size_t)w.c + 1);
            most = size > most ? size : most;
        }
    return most;
}

static uint64_t saved_registers(void)
{
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
#endif
}
#endif

void gf256_init(void)
{
    if (level_count)
        return; /* a second interpreter of this process imports the module: everything is in place */
    fill_tables();
    offer(gf256_scalar, 1);
#ifdef GF_X86
    const cpuid_words one = cpuid(1, 0), seven = cpuid(7, 0);
    const int osxsave = one.c >> 27 & 1;
    const uint64_t saved = osxsave ? saved_registers() : 0;
    const int ymm = (saved & 0x06) == 0x06 && (one.c >> 28 & 1);
    const int zmm = (saved & 0xE6) == 0xE6;
    const int gfni = seven.c >> 8 & 1, avx2 = ymm && (seven.b >> 5 & 1);
    const int avx512 = zmm && avx2 && (seven.b >> 16 & 1) && (seven.b >> 30 & 1) && (seven.b >> 31 & 1); /* F, BW, VL */
    offer(gf256_ssse3, one.c >> 9 & 1);
    offer(gf256_avx2, avx2);
    offer(gf256_avx2_gfni, avx2 && gfni);
    offer(gf256_avx512_gfni, avx512 && gfni);
    const size_t cache = last_cache();
    stream_limit = cache ? cache : stream_limit;
#endif
    offer(gf256_neon, 1);
    active = levels[level_count - 1];
}

int gf256_levels(const char **names)
{
    for (int i = 0; i < level_count; i++) names[i] = levels[i]->name;
    return level_count;
}

int gf256_use(const char *name)
{
    for (int i = 0; i < level_count; i++)
        if (!strcmp(levels[i]->name, name)) {
            active = levels[i];
            return 0;
        }
    return -1;
}

const gf256_kernels *gf256_active(void)
{
    return active;
}

/*
 * The limits below the last cache are no measured sizes; the kernels differ little there. Streaming earlier can make
 * encoding alone faster, but not encoding and then reading the parity: 4+1, 12 MiB 73 GB/s, with streaming stores 57.
 */
gf256_place gf256_place_of(size_t size)
{
    if (size > stream_limit)
        return GF256_STREAM;
    return size <= (size_t)48 << 10  ? GF256_L1
           : size <= (size_t)1 << 20 ? GF256_L2
           : size <= (size_t)12 << 20 ? GF256_L3
                                      : GF256_FAR;
}

size_t gf256_stream_above(size_t size)
{
    const size_t before = stream_limit;
    stream_limit = size;
    return before;
}
