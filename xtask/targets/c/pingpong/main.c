// pingpong: two threads on one CPU hand a futex to and fro. For each line "N" on stdin does it N times and
// prints the seconds of CPU it took.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static _Atomic int word;
static int rounds;

static void turn(int mine) {
    while (atomic_load(&word) != mine) syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, !mine, NULL, NULL, 0);
}
static void pass(int mine) {
    atomic_store(&word, !mine);
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
static void *other(void *unused) {
    for (int i = 0; i < rounds; i++) {
        turn(1);
        pass(1);
    }
    return unused;
}

int main(void) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1, &one);
    sched_setaffinity(0, sizeof one, &one);
    puts("ready 0");
    fflush(stdout);
    while (scanf("%d", &rounds) == 1) {
        struct timespec begun, ended;
        pthread_t thread;
        pthread_create(&thread, NULL, other, NULL);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begun);
        for (int i = 0; i < rounds; i++) {
            turn(0);
            pass(0);
        }
        pthread_join(thread, NULL);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ended);
        printf("%.6f\n", (ended.tv_sec - begun.tv_sec) + (ended.tv_nsec - begun.tv_nsec) / 1e9);
        fflush(stdout);
    }
    return 0;
}
