// waits: prints "ready ADDRESS", then for each line on stdin
//   wait N MS    one thread waits N times until it is woken after MS milliseconds
//   timed N MS   one thread waits N times until its time of MS milliseconds is up
//   refuse N     one thread asks N times to wait on a word that has another value
// and prints "done".
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static _Atomic int word;
static int rounds, milliseconds;
static char what[16];

static void nap(int milliseconds) {
    struct timespec rest = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    while (nanosleep(&rest, &rest)) {
    }
}

static void *waiter(void *unused) {
    struct timespec limit = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    for (int i = 0; i < rounds; i++) {
        if (!strcmp(what, "wait"))
            while (atomic_load(&word) == i) syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, i, NULL, NULL, 0);
        else if (!strcmp(what, "timed"))
            syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &limit, NULL, 0);
        else
            syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 12345, NULL, NULL, 0);
    }
    return unused;
}

int main(void) {
    printf("ready %lx\n", (unsigned long)&word);
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%15s %d %d", what, &rounds, &milliseconds) < 2) return 2;
        atomic_store(&word, 0);
        pthread_t thread;
        pthread_create(&thread, NULL, waiter, NULL);
        if (!strcmp(what, "wait"))
            for (int i = 0; i < rounds; i++) {
                nap(milliseconds);
                atomic_fetch_add(&word, 1);
                syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
            }
        // Joining would itself be a futex wait.
        while (pthread_tryjoin_np(thread, NULL)) nap(1);
        puts("done");
        fflush(stdout);
    }
    return 0;
}
