// pingpong [PAIRS]: pairs of threads, all on one CPU, that hand a futex to and fro. For each line "N" on stdin all
// pairs together do it N times; prints the seconds of CPU it took.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PAIRS = 1000 };
// A line of the cache each.
static struct { _Alignas(64) _Atomic int word; } turns[MAX_PAIRS];
static int pairs = 1, rounds;

static void turn(int pair, int mine) {
    while (atomic_load(&turns[pair].word) != mine)
        syscall(SYS_futex, &turns[pair].word, FUTEX_WAIT_PRIVATE, !mine, NULL, NULL, 0);
}
static void pass(int pair, int mine) {
    atomic_store(&turns[pair].word, !mine);
    syscall(SYS_futex, &turns[pair].word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
static void *player(void *which) {
    int pair = (int)((long)which / 2), mine = (int)((long)which % 2);
    for (int i = 0; i < rounds / pairs; i++) {
        turn(pair, mine);
        pass(pair, mine);
    }
    return NULL;
}

int main(int count, char **arguments) {
    if (count > 1) pairs = atoi(arguments[1]);
    if (pairs < 1 || pairs > MAX_PAIRS) return 2;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1, &one);
    sched_setaffinity(0, sizeof one, &one);
    puts("ready 0");
    fflush(stdout);
    while (scanf("%d", &rounds) == 1) {
        static pthread_t threads[2 * MAX_PAIRS];
        struct timespec begun, ended;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begun);
        for (long i = 0; i < 2 * pairs; i++) pthread_create(&threads[i], NULL, player, (void *)i);
        for (long i = 0; i < 2 * pairs; i++) pthread_join(threads[i], NULL);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ended);
        printf("%.6f\n", (ended.tv_sec - begun.tv_sec) + (ended.tv_nsec - begun.tv_nsec) / 1e9);
        fflush(stdout);
    }
    return 0;
}
