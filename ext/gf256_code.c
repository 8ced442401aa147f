/*
 * GF(256): the Reed-Solomon code over stripes, above the kernels.
 *
 * Rule: everything here is linear algebra on a few hundred field elements per call; only kernels touch the stripes.
 *
 * Stripe i is the coefficient of x^(n-1-i) and has the locator X_i = alpha^(n-1-i). The generator polynomial has the
 * roots alpha^b .. alpha^(b+m-1), chosen symmetric about 1 so that it is a palindrome. For odd m one of the roots is 1
 * itself: every codeword sums to zero, and a single loss is the XOR of all other stripes.
 */
#include "gf256.h"

#include <string.h>

#if defined(_MSC_VER) && !defined(__clang__) /* has no helper threads either */
#define LOAD_RELAXED(x) (x)
#define STORE_RELAXED(x, value) ((x) = (value))
#else
#define LOAD_RELAXED(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define STORE_RELAXED(x, value) __atomic_store_n(&(x), value, __ATOMIC_RELAXED)
#endif

static inline uint8_t power(int e) /* alpha^e for e >= 0 */
{
    return gf256_table.exp[e % 255];
}

/* X_i as an exponent */
static inline int locator(const gf256_code *code, int i)
{
    return code->n - 1 - i;
}

static void solve(const gf256_code *code, int rows, const uint8_t *want, const uint8_t *have, uint8_t *cell);

void gf256_code_init(gf256_code *code, int k, int m, int threads, uint8_t *matrix)
{
    uint8_t have[GF256_STRIPES], want[GF256_STRIPES];
    memset(code, 0, sizeof *code);
    code->matrix = matrix;
    code->threads = threads;
    code->k = k;
    code->m = m;
    code->n = k + m;
    code->b = m % 2 ? (255 - (m - 1) / 2) % 255 : 128 - m / 2;
    code->g[0] = 1;
    for (int j = 0; j < m; j++) { /* times (x - root) */
        const uint8_t root = power(code->b + j);
        for (int i = j + 1; i >= 0; i--)
            code->g[i] = (uint8_t)(gf256_mul(code->g[i], root) ^ (i ? code->g[i - 1] : 0));
    }
    for (int i = 0; i < k; i++) have[i] = (uint8_t)i;
    for (int j = 0; j < m; j++) want[j] = (uint8_t)(k + j);
    solve(code, m, want, have, matrix);
}

/*
 * Coefficients that express stripe `want[r]` through the k stripes `have[c]`, written to cell[r * k + c].
 *
 * The dual code holds, for every polynomial f of degree < m, the word X_i^b f(X_i). Taking f with zeros at the m
 * stripes not in `have`, except one, gives an equation between that one and the k we have. So no matrix is inverted:
 * with F(x) the product of (x - X_u) over the m absent u, the coefficient is
 *     X_c^b F(X_c) / (X_c - X_w)   over   X_w^b F'(X_w).
 */
static void solve(const gf256_code *code, int rows, const uint8_t *want, const uint8_t *have, uint8_t *cell)
{
    const uint8_t *exp = gf256_table.exp, *log = gf256_table.log;
    const int n = code->n, k = code->k;
    uint8_t x[GF256_STRIPES], present[GF256_STRIPES] = {0}, absent[GF256_STRIPES];
    int top[GF256_STRIPES], m = 0;
    for (int c = 0; c < k; c++) present[have[c]] = 1;
    for (int i = 0; i < n; i++) {
        x[i] = exp[locator(code, i)];
        if (!present[i])
            absent[m++] = x[i];
    }
    for (int i = 0; i < n; i++) { /* log of X_i^b times the product over the absent, leaving out a factor zero */
        int sum = code->b * locator(code, i);
        for (int u = 0; u < m; u++) sum += log[absent[u] ^ x[i]]; /* log[0] adds nothing */
        top[i] = sum % 255;
    }
    for (int r = 0; r < rows; r++) {
        const uint8_t y = x[want[r]];
        const uint8_t *from = exp + 510 - top[want[r]];
        for (int c = 0; c < k; c++) cell[r * k + c] = from[top[have[c]] - log[x[have[c]] ^ y]];
    }
}

int gf256_overlap(int n, size_t len, const uint8_t *const *stripe, const uint8_t *written)
{
    uintptr_t first = UINTPTR_MAX, last = 0, reach = len - 1;
    int output[GF256_STRIPES + 2], outputs = 0, met = 0;
    if (!len)
        return 0;
    for (int i = 0; i < n; i++)
        if (written[i]) {
            const uintptr_t at = (uintptr_t)stripe[i];
            /* |difference| < len, as one unsigned comparison */
            for (int o = 0; o < outputs; o++) met |= at - (uintptr_t)stripe[output[o]] + reach <= 2 * reach;
            output[outputs++] = i;
            first = at < first ? at : first;
            last = at > last ? at : last;
        }
    for (int i = 0; i < n; i++) {
        const uintptr_t at = (uintptr_t)stripe[i];
        /* outputs mostly lie together, so this one comparison settles most inputs */
        if (written[i] || at - first + reach > last - first + 2 * reach)
            continue;
        for (int o = 0; o < outputs; o++) met |= at - (uintptr_t)stripe[output[o]] + reach <= 2 * reach;
    }
    return met;
}

/*
 * An order of n inputs, for sums that allow any: the triangular numbers, which visit every residue of a power of two.
 * Stripes mostly lie at equal distances, and a load that walks over them has the hardware prefetch, at that distance,
 * what lies behind the last one. Here no distance comes twice: 7+1, 1 MiB 94 -> 114 GB/s, 16 MiB 58 -> 92.
 */
static void mixed_order(int n, uint8_t *order)
{
    int power_of_two = 1, count = 0;
    while (power_of_two < n) power_of_two *= 2;
    for (int step = 0, at = 0; count < n; at = (at + ++step) % power_of_two)
        if (at < n)
            order[count++] = (uint8_t)at;
}

/* dst = XOR of n sources */
static void sum(int n, size_t len, const uint8_t *const *src, uint8_t *dst, gf256_place place)
{
    uint8_t order[GF256_STRIPES];
    const uint8_t *mixed[GF256_STRIPES];
    if (place != GF256_L1 && n > 4) { /* else nothing is gained, and 10 ns matter */
        mixed_order(n, order);
        for (int i = 0; i < n; i++) mixed[i] = src[order[i]];
        src = mixed;
    }
    gf256_active()->xor_all(n, len, src, dst, place);
}

/* parity of `len` columns, on this thread */
static void divide(const gf256_code *code, size_t len, const uint8_t *const *data, uint8_t *const *parity,
                   gf256_place place)
{
    if (code->m == 1)
        sum(code->k, len, data, parity[0], place);
    else
        gf256_active()->lfsr(code->k, code->m, len, data, parity, code->g, place);
}

typedef struct {
    const gf256_code *code;
    const uint8_t *const *data;
    uint8_t *const *parity;
    gf256_place place;
} encode_task;

static void encode_columns(void *argument, size_t from, size_t to)
{
    const encode_task *task = argument;
    const int k = task->code->k, m = task->code->m;
    const uint8_t *data[GF256_STRIPES];
    uint8_t *parity[GF256_STRIPES];
    for (int i = 0; i < k; i++) data[i] = task->data[i] + from;
    for (int j = 0; j < m; j++) parity[j] = task->parity[j] + from;
    divide(task->code, to - from, data, parity, task->place);
}

void gf256_encode(const gf256_code *code, size_t len, const uint8_t *const *data, uint8_t *const *parity)
{
    const gf256_place place = gf256_place_of(len * (size_t)code->n);
    if (code->threads == 1) { /* shortest way for short stripes */
        divide(code, len, data, parity, place);
        return;
    }
    encode_task task = {code, data, parity, place};
    gf256_columns(encode_columns, &task, len, len * (size_t)code->k, code->threads);
}

typedef struct {
    const gf256_code *code;
    size_t size, len;
    const uint8_t *data;
    uint8_t *const *stripe;
} split_task;

static void split_columns(void *argument, size_t from, size_t to)
{
    const split_task *task = argument;
    const gf256_code *code = task->code;
    const int k = code->k, m = code->m;
    const uint8_t *data[GF256_STRIPES];
    uint8_t *parity[GF256_STRIPES];
    const size_t step = 4096; /* copied and encoded in blocks, so that encoding reads what is still in the cache */
    for (size_t o = from; o < to; o += step) {
        const size_t part = to - o < step ? to - o : step;
        for (int i = 0; i < k; i++) {
            uint8_t *stripe = task->stripe[i] + o;
            const size_t start = (size_t)i * task->len + o;
            const size_t known = start >= task->size ? 0 : task->size - start < part ? task->size - start : part;
            if (known)
                memcpy(stripe, task->data + start, known);
            if (known < part)
                memset(stripe + known, 0, part - known);
            data[i] = stripe;
        }
        for (int j = 0; j < m; j++) parity[j] = task->stripe[k + j] + o;
        divide(code, part, data, parity, GF256_L2);
    }
}

void gf256_split(const gf256_code *code, size_t size, size_t len, const uint8_t *data, uint8_t *const *stripe)
{
    split_task task = {code, size, len, data, stripe};
    gf256_columns(split_columns, &task, len, size, code->threads);
}

/*
 * dst = matrix * src, matrix[r * cols + c]: regrouped into passes of up to GF256_ROWS outputs, column by column, and
 * the columns in mixed order
 */
static void multiply(int rows, int cols, const uint8_t *matrix, size_t len, const uint8_t *const *src,
                     uint8_t *const *dst, gf256_place place)
{
    uint8_t cell[GF256_ROWS * GF256_STRIPES], order[GF256_STRIPES];
    const uint8_t *mixed[GF256_STRIPES];
    mixed_order(cols, order);
    for (int c = 0; c < cols; c++) mixed[c] = src[order[c]];
    for (int row = 0; row < rows; row += GF256_ROWS) {
        const int group = rows - row < GF256_ROWS ? rows - row : GF256_ROWS;
        for (int c = 0; c < cols; c++)
            for (int r = 0; r < group; r++) cell[c * group + r] = matrix[(row + r) * cols + order[c]];
        gf256_active()->dense(group, cols, len, mixed, dst + row, cell, place);
    }
}

typedef struct {
    const gf256_code *code;
    enum { SUM, DIVIDE, MULTIPLY } way;
    int gone, left;
    gf256_place place;
    const uint8_t *src[GF256_STRIPES]; /* the stripes that are left, in order */
    uint8_t *dst[GF256_STRIPES];       /* those that are to be filled */
    uint8_t matrix[127 * 128];         /* gone rows and k columns: gone <= m, so at most 127 * 128 */
} repair_task;

static void repair_columns(void *argument, size_t from, size_t to)
{
    const repair_task *task = argument;
    const int k = task->code->k;
    /* several passes over the inputs go in blocks, so that the later passes find them in the cache */
    const size_t step = task->way == MULTIPLY && task->gone > GF256_ROWS ? 4096 : to - from;
    const uint8_t *src[GF256_STRIPES];
    uint8_t *dst[GF256_STRIPES];
    for (size_t o = from; o < to; o += step) {
        const size_t part = to - o < step ? to - o : step;
        for (int i = 0; i < task->left; i++) src[i] = task->src[i] + o;
        for (int i = 0; i < task->gone; i++) dst[i] = task->dst[i] + o;
        if (task->way == SUM)
            sum(task->left, part, src, dst[0], task->place);
        else if (task->way == DIVIDE)
            divide(task->code, part, src, dst, task->place);
        else
            multiply(task->gone, k, task->matrix, part, src, dst, task->place);
    }
}

void gf256_reconstruct(const gf256_code *code, size_t len, uint8_t *const *stripe, const uint8_t *lost)
{
    const int n = code->n, k = code->k, m = code->m;
    uint8_t want[GF256_STRIPES], have[GF256_STRIPES];
    repair_task task;
    int gone = 0, left = 0;
    for (int i = 0; i < n; i++)
        if (lost[i]) {
            task.dst[gone] = stripe[i];
            want[gone++] = (uint8_t)i;
        } else {
            task.src[left] = stripe[i];
            have[left++] = (uint8_t)i;
        }
    if (!gone)
        return;
    task.code = code;
    task.gone = gone;
    task.left = left;
    task.place = gf256_place_of(len * (size_t)n);
    if (gone == 1 && m % 2) {
        task.way = SUM;
    } else if (gone == m && have[k - 1] == k - 1) { /* all data are here: the division is cheaper than the matrix */
        task.way = DIVIDE;
    } else {
        task.way = MULTIPLY;
        solve(code, gone, want, have, task.matrix);
    }
    gf256_columns(repair_columns, &task, len, len * (size_t)k, code->threads);
}

/* columns handled at a time when m stripes of scratch are needed */
static size_t scratch_step(int m)
{
    return (size_t)GF256_SCRATCH / (size_t)m / 64 * 64;
}

typedef struct {
    const gf256_code *code;
    const uint8_t *const *stripe;
    int agrees; /* only ever cleared, so threads may do so at any time */
} verify_task;

static void verify_columns(void *argument, size_t from, size_t to)
{
    verify_task *task = argument;
    const int k = task->code->k, m = task->code->m;
    const size_t step = scratch_step(m);
    uint8_t scratch[GF256_SCRATCH], *parity[GF256_STRIPES];
    const uint8_t *data[GF256_STRIPES];
    for (int j = 0; j < m; j++) parity[j] = scratch + (size_t)j * step;
    for (size_t o = from; o < to && LOAD_RELAXED(task->agrees); o += step) {
        const size_t part = to - o < step ? to - o : step;
        for (int i = 0; i < k; i++) data[i] = task->stripe[i] + o;
        divide(task->code, part, data, parity, GF256_FAR); /* wherever: asking ahead costs little */
        for (int j = 0; j < m; j++)
            if (memcmp(parity[j], task->stripe[k + j] + o, part)) {
                STORE_RELAXED(task->agrees, 0);
                return;
            }
    }
}

int gf256_verify(const gf256_code *code, size_t len, const uint8_t *const *stripe)
{
    verify_task task = {code, stripe, 1};
    gf256_columns(verify_columns, &task, len, len * (size_t)code->k, code->threads);
    return task.agrees;
}

void gf256_update(const gf256_code *code, int index, size_t len, const uint8_t *was, const uint8_t *now,
                  uint8_t *const *parity)
{
    uint8_t cell[GF256_STRIPES];
    for (int j = 0; j < code->m; j++) cell[j] = code->matrix[j * code->k + index];
    gf256_active()->update(code->m, len, was, now, parity, cell);
}

/* ---- locate ---- */

/*
 * Rows that turn the remainder of a received word (parity order, highest power first) into syndromes blind to the
 * flagged stripes: with F(x) the product of (x - X_u) over them,  T_i = sum_p r_p alpha^((b+i) p) F(alpha^p).
 */
static int blind_rows(const gf256_code *code, const uint8_t *hidden, uint8_t *matrix)
{
    const int m = code->m;
    int rows = m;
    uint8_t f[GF256_STRIPES];
    memset(f, 1, sizeof f);
    for (int u = 0; u < code->n; u++) {
        if (!hidden[u])
            continue;
        rows--;
        for (int p = 0; p < m; p++) f[p] = gf256_mul(f[p], power(p) ^ power(locator(code, u)));
    }
    for (int i = 0; i < rows; i++)
        for (int p = 0; p < m; p++) matrix[i * m + m - 1 - p] = gf256_mul(f[p], power((code->b + i) * p));
    return rows;
}

/*
 * Wrong stripes of one column from `count` syndromes, into wrong[]; returns how many, -1 if more than count / 2.
 * Berlekamp-Massey finds the shortest recurrence; its roots must all be locators of stripes we looked at.
 */
static int explain(const gf256_code *code, int count, const uint8_t *t, const uint8_t *missing, uint8_t *wrong)
{
    uint8_t now[GF256_STRIPES + 1] = {1}, old[GF256_STRIPES + 1] = {1}, keep[GF256_STRIPES + 1];
    uint8_t old_gap = 1;
    int length = 0, shift = 1, found = 0;
    for (int i = 0; i < count; i++) {
        uint8_t gap = t[i];
        for (int j = 1; j <= length; j++) gap ^= gf256_mul(now[j], t[i - j]);
        if (!gap) {
            shift++;
            continue;
        }
        const uint8_t scale = power(gf256_table.log[gap] + 255 - gf256_table.log[old_gap]);
        memcpy(keep, now, sizeof keep);
        for (int j = shift; j <= count; j++) now[j] ^= gf256_mul(scale, old[j - shift]);
        if (2 * length <= i) {
            length = i + 1 - length;
            memcpy(old, keep, sizeof old);
            old_gap = gap;
            shift = 1;
        } else {
            shift++;
        }
    }
    if (length > count / 2)
        return -1;
    for (int i = 0; i < code->n; i++) { /* now(1 / X_i) == 0 */
        if (missing[i])
            continue;
        const int inverse = 255 - locator(code, i);
        uint8_t sum = 0;
        for (int j = 0; j <= length; j++) sum ^= gf256_mul(now[j], power(inverse * j));
        if (!sum)
            wrong[found++] = (uint8_t)i;
    }
    return found == length ? found : -1;
}

/* column of the first nonzero byte of any of `rows` stripes at or after `column`; `part` if there is none */
static size_t next_dirty(int rows, uint8_t *const *t, size_t column, size_t part)
{
    for (; column < part; column++) {
        uint8_t any = 0;
        if (column % 64 == 0) { /* by the cache line while it is clean */
            while (column + 64 <= part) {
                uint64_t line = 0, word;
                for (int i = 0; i < rows; i++)
                    for (int j = 0; j < 64; j += 8) {
                        memcpy(&word, t[i] + column + j, 8);
                        line |= word;
                    }
                if (line)
                    break;
                column += 64;
            }
            if (column >= part)
                break;
        }
        for (int i = 0; i < rows; i++) any |= t[i][column];
        if (any)
            break;
    }
    return column;
}

/* t[i] of one column from its remainder */
static void syndromes(int count, int m, const uint8_t *matrix, const uint8_t *const *rem, size_t column, uint8_t *t)
{
    for (int i = 0; i < count; i++) {
        t[i] = 0;
        for (int p = 0; p < m; p++) t[i] ^= gf256_mul(matrix[i * m + p], rem[p][column]);
    }
}

/* remainder of the received word, `part` columns from `o`: the parity that should be there plus the parity that is */
static void remainder_of(const gf256_code *code, size_t o, size_t part, const uint8_t *const *stripe,
                         const uint8_t *zeros, uint8_t *const *rem)
{
    const uint8_t *data[GF256_STRIPES];
    for (int i = 0; i < code->k; i++) data[i] = stripe[i] ? stripe[i] + o : zeros;
    divide(code, part, data, rem, GF256_FAR);
    for (int j = 0; j < code->m; j++) {
        if (!stripe[code->k + j])
            continue;
        uint8_t *to = rem[j]; /* hoisted, or the compiler must expect the stores to change rem[] */
        const uint8_t *given = stripe[code->k + j] + o;
        for (size_t x = 0; x < part; x++) to[x] ^= given[x];
    }
}

int gf256_locate(const gf256_code *code, size_t len, const uint8_t *const *stripe, uint8_t *wrong, gf256_work *work)
{
    const int n = code->n, m = code->m;
    const size_t step = scratch_step(m);
    uint8_t missing[GF256_STRIPES], hidden[GF256_STRIPES], named[GF256_STRIPES], t[GF256_STRIPES];
    uint8_t *rem[GF256_STRIPES], *syn[GF256_STRIPES];
    const uint8_t *const *seen = (const uint8_t *const *)rem;
    int spare = m, found = 0;
    for (int i = 0; i < n; i++) {
        hidden[i] = missing[i] = !stripe[i];
        wrong[i] = 0;
        spare -= missing[i];
    }
    if (spare < 1)
        return 0; /* nothing is left over that could disagree */
    for (int j = 0; j < m; j++) {
        rem[j] = work->remainder + (size_t)j * step;
        syn[j] = work->syndrome + (size_t)j * step;
    }
    memset(work->zeros, 0, sizeof work->zeros);
    blind_rows(code, missing, work->base);
    int rows = blind_rows(code, hidden, work->blind);
    for (size_t o = 0; o < len; o += step) {
        const size_t part = len - o < step ? len - o : step;
        remainder_of(code, o, part, stripe, work->zeros, rem);
        if (next_dirty(m, rem, 0, part) == part)
            continue;
        multiply(rows, m, work->blind, part, seen, syn, GF256_L1);
        for (size_t column = 0; (column = next_dirty(rows, syn, column, part)) < part; column++) {
            syndromes(spare, m, work->base, seen, column, t);
            const int count = explain(code, spare, t, missing, named);
            if (count < 0)
                return -1;
            const int before = found;
            for (int i = 0; i < count; i++) {
                found += !wrong[named[i]];
                wrong[named[i]] = 1;
            }
            /*
             * A stripe once caught is mostly wrong throughout. While those caught are few enough that no other set
             * could explain the same column, hide them from the syndromes: columns they explain become clean at
             * vector speed.
             */
            if (found == before || before > spare / 2)
                continue;
            for (int i = 0; i < n; i++) hidden[i] = missing[i] || (found <= spare / 2 && wrong[i]);
            rows = blind_rows(code, hidden, work->blind);
            multiply(rows, m, work->blind, part, seen, syn, GF256_L1);
        }
    }
    return found;
}
