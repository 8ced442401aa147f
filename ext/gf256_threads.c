/*
 * GF(256): one call spread over threads.
 *
 * Blocks of columns are handed out one by one, so a thread that starts late or shares its core just takes fewer. The
 * helpers are made for the call and joined before it returns: nothing outlives it, so there is nothing that a fork
 * could lose or an exit would have to stop. They block all signals, which belong to the threads of the interpreter.
 * If no thread can be made, the caller does all the work itself.
 */
#include "gf256.h"

#if !defined(_WIN32)
#include <pthread.h>
#include <signal.h>

#define STEP 4096 /* blocks begin at multiples of it, so the alignment of a stripe is that of all its blocks */
#define TURNS 8   /* blocks per thread: what is left to wait for at the end is a part of one */
#define STACK ((size_t)1 << 20)

typedef struct {
    gf256_job job;
    void *task;
    size_t len, block, next;
} shared_work;

static void *work(void *argument)
{
    shared_work *all = argument;
    size_t from;
    while ((from = __atomic_fetch_add(&all->next, all->block, __ATOMIC_RELAXED)) < all->len)
        all->job(all->task, from, all->len - from < all->block ? all->len : from + all->block);
    return NULL;
}

/* start up to `count` helpers; returns how many there are */
static int start(shared_work *all, int count, pthread_t *helper)
{
    sigset_t every, before;
    pthread_attr_t attributes;
    int made = 0;
    if (pthread_attr_init(&attributes))
        return 0;
    pthread_attr_setstacksize(&attributes, STACK);
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    while (made < count && !pthread_create(&helper[made], &attributes, work, all)) made++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return made;
}

static void share(gf256_job job, void *task, size_t len, int threads)
{
    pthread_t helper[GF256_THREADS];
    const size_t parts = (size_t)threads * TURNS;
    shared_work all = {job, task, len, (len / parts / STEP + 1) * STEP, 0};
    int made = start(&all, threads - 1, helper);
    work(&all);
    while (made) pthread_join(helper[--made], NULL);
}
#endif

void gf256_columns(gf256_job job, void *task, size_t len, size_t size, int threads)
{
    const size_t busy = size / GF256_PER_THREAD;
    if (busy < (size_t)threads)
        threads = (int)busy;
#if !defined(_WIN32)
    if (threads > 1) {
        share(job, task, len, threads);
        return;
    }
#endif
    job(task, 0, len);
}
