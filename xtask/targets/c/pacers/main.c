// pacers THREADS MS BURST PAUSE: so many threads, each of which waits on a futex until its time of MS milliseconds is
// up, BURST times in a row, and sleeps PAUSE milliseconds then (BURST 0: it never sleeps). Begin at random. Prints
// "ready 0", and for each line on stdin how many waits have ended and how many seconds they took.
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static _Atomic long ended, nanoseconds;
static int milliseconds, burst, pause_milliseconds;

static struct timespec time_of(int milliseconds) {
    return (struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000L};
}
static long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000L + at.tv_nsec;
}
static void *pacer(void *number) {
    unsigned seed = (unsigned)(long)number + 1;
    int whole = milliseconds + (burst ? pause_milliseconds : 0);
    usleep((useconds_t)(rand_r(&seed) % (1000 * whole)));
    int word = 0;
    for (int i = 1;; i++) {
        struct timespec limit = time_of(milliseconds);
        long begun = now();
        syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &limit, NULL, 0);
        nanoseconds += now() - begun;
        ended++;
        if (burst && i % burst == 0) {
            struct timespec rest = time_of(pause_milliseconds);
            nanosleep(&rest, NULL);
        }
    }
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 5) return 2;
    milliseconds = atoi(arguments[2]);
    burst = atoi(arguments[3]);
    pause_milliseconds = atoi(arguments[4]);
    for (long i = 0; i < atoi(arguments[1]); i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, pacer, (void *)i)) return 3;
    }
    puts("ready 0");
    fflush(stdout);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        printf("%ld %.6f\n", atomic_load(&ended), (double)atomic_load(&nanoseconds) / 1e9);
        fflush(stdout);
    }
    return 0;
}
