/*
 * C loops for bench_gf256: the same call many times, so that neither side is charged for coming from Python.
 *
 * Built by the bench together with ext/gf256*.c; ISA-L's functions come as pointers. Nothing of this is installed.
 */
#include "gf256.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC visibility push(default) /* the kernels are hidden, as they are where they are installed */

typedef void (*encode_fn)(int len, int k, int rows, uint8_t *tables, uint8_t **data, uint8_t **coding);
typedef void (*tables_fn)(int k, int rows, uint8_t *matrix, uint8_t *tables);
typedef int (*invert_fn)(uint8_t *in, uint8_t *out, int n);
typedef int (*xor_fn)(int vects, int len, void **array);

static uint8_t cells[GF256_STRIPES * GF256_STRIPES];

int loop_start(const char *isa)
{
    gf256_init();
    return gf256_use(isa);
}

void loop_encode(long rounds, int k, int m, size_t len, uint8_t **stripe)
{
    gf256_code code;
    gf256_code_init(&code, k, m, 1, cells);
    while (rounds--) gf256_encode(&code, len, (const uint8_t *const *)stripe, stripe + k);
}

void loop_reconstruct(long rounds, int k, int m, size_t len, uint8_t **stripe, int gone)
{
    gf256_code code;
    uint8_t lost[GF256_STRIPES] = {0};
    gf256_code_init(&code, k, m, 1, cells);
    memset(lost, 1, (size_t)gone);
    while (rounds--) gf256_reconstruct(&code, len, stripe, lost);
}

void loop_isal_encode(long rounds, int k, int m, int len, uint8_t **stripe, encode_fn encode, uint8_t *tables)
{
    while (rounds--) encode(len, k, m, tables, stripe, stripe + k);
}

void loop_isal_xor(long rounds, int sources, int len, void **array, xor_fn xor_gen)
{
    while (rounds--) xor_gen(sources + 1, len, array);
}

/* the first `gone` data stripes from the k that follow: invert, expand the tables, multiply, all of it each time */
void loop_isal_decode(long rounds, int k, int gone, int len, uint8_t **stripe, const uint8_t *left, encode_fn encode,
                      tables_fn expand, invert_fn invert)
{
    uint8_t matrix[64 * 64], inverse[64 * 64], *tables = aligned_alloc(64, 32 * 64 * 64);
    while (rounds--) {
        memcpy(matrix, left, (size_t)(k * k));
        invert(matrix, inverse, k);
        expand(k, gone, inverse, tables);
        encode(len, k, gone, tables, stripe + gone, stripe);
    }
    free(tables);
}

/* ---- memory bandwidth: every 64-byte line is touched once per round ---- */

typedef struct {
    const uint8_t *from, *to;
    long rounds;
    uint64_t sum;
} reader;

static void *read_all(void *argument)
{
    reader *r = argument;
    uint64_t sum[4] = {0};
    for (long i = 0; i < r->rounds; i++)
        for (const uint64_t *p = (const uint64_t *)r->from; (const uint8_t *)(p + 32) <= r->to; p += 32)
            for (int line = 0; line < 4; line++) sum[line] ^= p[8 * line];
    r->sum = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
    return NULL;
}

uint64_t loop_read(long rounds, const uint8_t *from, size_t size, int threads)
{
    pthread_t helper;
    reader half[2] = {{from, from + size / 2, rounds, 0}, {from + size / 2, from + size, rounds, 0}};
    if (threads == 2 && pthread_create(&helper, NULL, read_all, &half[1]))
        return 0;
    read_all(&half[0]);
    if (threads == 2)
        pthread_join(helper, NULL);
    else
        read_all(&half[1]);
    return half[0].sum ^ half[1].sum;
}
