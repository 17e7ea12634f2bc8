// sleepers N: N threads wait for ever on one futex, three calls deep; each line on stdin wakes all once.
// Prints "ready ADDRESS" when all of them sleep.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic int word;
static _Atomic int arrived;

__attribute__((noinline)) static void wait_here(void) {
    int seen = atomic_load(&word);
    atomic_fetch_add(&arrived, 1);
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    __asm__ volatile("" ::: "memory");
}
__attribute__((noinline)) static void middle(void) {
    wait_here();
    __asm__ volatile("" ::: "memory");
}
static void *outer(void *unused) {
    for (;;) middle();
    return unused;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, outer, NULL)) {
            perror("pthread_create");
            return 1;
        }
    }
    while (atomic_load(&arrived) < threads) usleep(1000);
    usleep(100000);
    printf("ready %lx\n", (unsigned long)&word);
    fflush(stdout);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        atomic_fetch_add(&word, 1);
        syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
    }
    return 0;
}
