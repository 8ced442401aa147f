/*
 * The plain C side of the Reed-Solomon code, without Python: for CPUs that only an emulator runs, and for sanitizers.
 *
 * Every level of this CPU is held against polynomial division by hand, one byte column at a time, with a field
 * multiplication that uses no table. Prints each level that passed; exits at the first byte that is wrong.
 * Built and run by scripts/long-tests.
 */
#include "gf256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 6000 /* longest stripe of the small codes */

static uint32_t seed = 1;
static uint8_t matrix[GF256_STRIPES * GF256_STRIPES];

static uint32_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static uint8_t times(unsigned a, unsigned b)
{
    unsigned product = 0;
    for (; b; b >>= 1) {
        if (b & 1)
            product ^= a;
        a = a << 1 ^ (a >> 7) * 0x11D;
    }
    return (uint8_t)product;
}

static void need(int holds, const char *what, int k, int m, size_t len)
{
    if (holds)
        return;
    fprintf(stderr, "%s: %s is wrong for %d+%d, %zu bytes\n", gf256_active()->name, what, k, m, len);
    exit(1);
}

/* the generator, highest power first, from its roots alpha^b .. alpha^(b+m-1) */
static void generator(int m, uint8_t *g)
{
    int b = m % 2 ? 255 - (m - 1) / 2 : 128 - m / 2;
    uint8_t root = 1;
    memset(g, 0, (size_t)m + 1);
    g[0] = 1;
    for (int i = 0; i < b; i++) root = times(root, 2);
    for (int i = 1; i <= m; i++) {
        for (int j = i; j; j--) g[j] ^= times(g[j - 1], root);
        root = times(root, 2);
    }
}

static void divide(int k, int m, const uint8_t *g, uint8_t *const *stripe, size_t column, uint8_t *rest)
{
    uint8_t word[2 * GF256_STRIPES] = {0};
    for (int i = 0; i < k; i++) word[i] = stripe[i][column];
    for (int i = 0; i < k; i++)
        for (int j = m; j >= 0; j--) word[i + j] ^= times(g[j], word[i]);
    memcpy(rest, word + k, (size_t)m);
}

/* stripes with 64 bytes of 0xEE around each, `skew` further from alignment one after the other */
static uint8_t *lay(uint8_t **stripe, int n, size_t len, size_t lead, size_t skew)
{
    const size_t step = len / 64 * 64 + 192 + skew, size = (size_t)n * step + lead + 128;
    uint8_t *space = aligned_alloc(64, (size + 63) / 64 * 64);
    memset(space, 0xEE, (size + 63) / 64 * 64);
    for (int i = 0; i < n; i++) stripe[i] = space + 64 + lead + (size_t)i * step;
    return space;
}

static int untouched(uint8_t *const *stripe, int n, size_t len)
{
    for (int i = 0; i < n; i++)
        for (int x = 1; x <= 64; x++)
            if (stripe[i][-x] != 0xEE || stripe[i][len + (size_t)x - 1] != 0xEE)
                return 0;
    return 1;
}

static void check(int k, int m, size_t len, size_t lead, size_t skew, int threads)
{
    static gf256_work work;
    gf256_code code;
    uint8_t *stripe[GF256_STRIPES], *copy[GF256_STRIPES], g[GF256_STRIPES + 1], rest[GF256_STRIPES];
    uint8_t lost[GF256_STRIPES] = {0}, wrong[GF256_STRIPES];
    const int n = k + m;
    uint8_t *space = lay(stripe, n, len, lead, skew), *second = lay(copy, n, len, 0, 0);
    const size_t stride = len > 8 * MOST ? 4093 : 1; /* of a long stripe, a sample of the columns */
    gf256_code_init(&code, k, m, threads, matrix);
    generator(m, g);
    for (int i = 0; i < k; i++)
        for (size_t x = 0; x < len; x++) stripe[i][x] = (uint8_t)rnd();

    gf256_encode(&code, len, (const uint8_t *const *)stripe, stripe + k);
    for (size_t x = 0; x < len; x += stride) {
        divide(k, m, g, stripe, x, rest);
        for (int j = 0; j < m; j++) need(stripe[k + j][x] == rest[j], "encode", k, m, len);
    }
    need(gf256_verify(&code, len, (const uint8_t *const *)stripe), "verify", k, m, len);
    for (int i = 0; i < n; i++) memcpy(copy[i], stripe[i], len);

    for (int gone = 1; gone <= m; gone += gone < m && 2 * gone > m ? m - gone : gone) {
        memset(lost, 0, sizeof lost);
        for (int i = 0; i < gone;) {
            const int victim = (int)(rnd() % (unsigned)n);
            if (lost[victim])
                continue;
            lost[victim] = 1;
            memset(stripe[victim], 0xAA, len);
            i++;
        }
        gf256_reconstruct(&code, len, stripe, lost);
        for (int i = 0; i < n; i++) need(!memcmp(stripe[i], copy[i], len), "reconstruct", k, m, len);
    }

    if (len) {
        const int liar = (int)(rnd() % (unsigned)n);
        stripe[liar][len - 1] ^= 0x40;
        need(!gf256_verify(&code, len, (const uint8_t *const *)stripe), "verify of a wrong stripe", k, m, len);
        if (m > 1) {
            need(gf256_locate(&code, len, (const uint8_t *const *)stripe, wrong, &work) == 1 && wrong[liar], "locate",
                 k, m, len);
        }
        stripe[liar][len - 1] ^= 0x40;
    }

    for (size_t x = 0; x < len; x++) stripe[0][x] = (uint8_t)rnd();
    gf256_update(&code, 0, len, copy[0], stripe[0], stripe + k);
    need(gf256_verify(&code, len, (const uint8_t *const *)stripe), "update", k, m, len);
    need(untouched(stripe, n, len), "a byte next to a stripe", k, m, len);
    free(space);
    free(second);
}

static void golden(void)
{
    static const uint8_t want[5][4] = {{0x58, 0xe3, 0x6c, 0xda}, {0x58, 0x4a, 0xd1, 0x50}, {0xf2, 0x14, 0x96, 0x72},
                                       {0x67, 0x58, 0x0a, 0x2c}, {0x25, 0xb9, 0x61, 0x18}};
    uint8_t block[25][4] = {{0}}, *stripe[25];
    gf256_code code;
    gf256_code_init(&code, 20, 5, 1, matrix);
    for (int i = 0; i < 25; i++) {
        stripe[i] = block[i];
        for (int j = 0; i < 20 && j < 4; j++) block[i][j] = (uint8_t)(7 * i + j * j + 1);
    }
    gf256_encode(&code, 4, (const uint8_t *const *)stripe, stripe + 20);
    need(!memcmp(block[20], want, sizeof want), "the golden vector", 20, 5, 4);
}

int main(void)
{
    static const int codes[][2] = {{1, 1}, {4, 1}, {7, 1}, {3, 2}, {17, 3}, {10, 4}, {20, 5},
                                   {7, 6}, {9, 7}, {5, 8}, {6, 9}, {3, 20}};
    static const size_t lens[] = {0, 1, 7, 8, 15, 16, 17, 63, 64, 65, 127, 129, 205, 255, 256, 257, 300, MOST - 1};
    const char *names[GF256_LEVELS];
    gf256_init();
    const int levels = gf256_levels(names);
    for (int l = 0; l < levels; l++) {
        gf256_use(names[l]);
        golden();
        for (size_t c = 0; c < sizeof codes / sizeof *codes; c++)
            for (size_t i = 0; i < sizeof lens / sizeof *lens; i++)
                for (int past = 0; past < 2; past++) {
                    const size_t before = gf256_stream_above(past ? 0 : SIZE_MAX);
                    check(codes[c][0], codes[c][1], lens[i], rnd() % 64, past ? 0 : rnd() % 64, 1);
                    gf256_stream_above(before);
                }
        check(3, 2, 3 << 20, 5, 0, 2); /* enough for a helper thread */
        check(127, 128, 70, 0, 1, 1);
        check(1, 254, 70, 0, 1, 1);
        check(254, 1, 70, 0, 1, 1);
        printf("%s passed\n", names[l]);
    }
    return 0;
}
