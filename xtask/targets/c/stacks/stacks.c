// Threads that sleep for ever below stacks that are hard to walk; says `ok` once all of them sleep.
//
// Each thread waits at the bottom of a chain whose functions have names of their own. To be built -O2 without frame
// pointers: deep recursion, large and aligned and variable frames, callbacks of libc, signal handlers on the
// thread's stack and on another one, also where the signal came in a leaf, in a prologue and in the vdso.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

static sem_t never;
static volatile int sink;
static volatile int spinning;
static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t free_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_t sleeper;

NOINLINE int sleep_here(void) {
    while (sem_wait(&never) != 0)
        sink++;
    return sink;
}

NOINLINE int recurse(int depth) {
    int below = depth == 0 ? sleep_here() : recurse(depth - 1);
    sink++;
    return below + 1;
}

NOINLINE int in_a_large_frame(void) {
    volatile char large[40 * 1024];
    large[sink & 1023] = 1;
    int slept = sleep_here();
    return slept + large[sink & 4095];
}

NOINLINE int in_a_variable_frame(int size) {
    volatile char variable[size];
    variable[size / 2] = 1;
    int slept = sleep_here();
    return slept + variable[size - 1];
}

NOINLINE int in_an_aligned_frame(void) {
    volatile char aligned[256] __attribute__((aligned(64)));
    aligned[sink & 255] = 1;
    int slept = sleep_here();
    return slept + aligned[7];
}

NOINLINE int in_an_aligned_variable_frame(int size) {
    volatile char aligned[128] __attribute__((aligned(64)));
    volatile char variable[size];
    aligned[1] = variable[2] = 1;
    int slept = sleep_here();
    return slept + aligned[7] + variable[3];
}

NOINLINE int compare(const void *a, const void *b) {
    sink += sleep_here();
    return *(const int *)a - *(const int *)b;
}

NOINLINE int in_qsort(void) {
    int numbers[] = {3, 1, 2};
    qsort(numbers, 3, sizeof numbers[0], compare);
    return numbers[0];
}

NOINLINE void handler(int signal) {
    int saved = sink;
    sink += sleep_here() + signal;
    sink = saved;
}

static void handle(int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigaction(flags & SA_ONSTACK ? SIGUSR2 : SIGUSR1, &action, NULL);
}

NOINLINE int raise_here(void) {
    raise(SIGUSR1);
    return sink++;
}

NOINLINE int raise_on_another_stack(void) {
    stack_t other = {.ss_sp = malloc(64 * 1024), .ss_size = 64 * 1024};
    sigaltstack(&other, NULL);
    raise(SIGUSR2);
    return sink++;
}

// Interrupted in a leaf of its own, at any of its instructions.
NOINLINE long leaf(long a) {
    long sum = a;
    for (int i = 0; i < 100; i++)
        sum = sum * 3 + (sum >> 7);
    return sum;
}

NOINLINE long busy(void) {
    long sum = 1;
    spinning++;
    for (;;) {
        sum += leaf(sum);
        if (sum == 42)
            return sum;
    }
}

// Interrupted in the vdso, nearly always.
NOINLINE long ask_the_time(void) {
    struct timespec now;
    long sum = 0;
    spinning++;
    for (;;) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        sum += now.tv_nsec;
        if (sum == 42)
            return sum;
    }
}

NOINLINE int on_mutex(void) {
    pthread_mutex_lock(&held);
    return sink++;
}

NOINLINE int on_cond(void) {
    pthread_mutex_lock(&free_mutex);
    for (;;)
        sink += pthread_cond_wait(&cond, &free_mutex);
}

NOINLINE int on_rwlock(void) {
    pthread_rwlock_rdlock(&rwlock);
    return sink++;
}

NOINLINE int on_barrier(void) {
    pthread_barrier_wait(&barrier);
    return sink++;
}

NOINLINE int on_join(void) {
    void *result;
    pthread_join(sleeper, &result);
    return sink++;
}

NOINLINE int once_inside(int n) {
    char text[64];
    snprintf(text, sizeof text, "%d", n);
    return sleep_here() + text[0];
}
static void initialize(void) { sink += once_inside(7); }
static pthread_once_t once = PTHREAD_ONCE_INIT;
NOINLINE int in_once(void) {
    pthread_once(&once, initialize);
    return sink++;
}

static void *a_recursion(void *x) { sink += recurse(60); return x; }
static void *a_deep_one(void *x) { sink += recurse(20000); return x; }
static void *a_large_frame(void *x) { sink += in_a_large_frame(); return x; }
static void *a_variable_frame(void *x) { sink += in_a_variable_frame(sink + 3000); return x; }
static void *an_aligned_frame(void *x) { sink += in_an_aligned_frame(); return x; }
static void *an_aligned_variable_frame(void *x) { sink += in_an_aligned_variable_frame(sink + 777); return x; }
static void *a_callback(void *x) { sink += in_qsort(); return x; }
static void *a_handler(void *x) { sink += raise_here(); return x; }
static void *another_stack(void *x) { sink += raise_on_another_stack(); return x; }
static void *a_busy_one(void *x) { sink += busy(); return x; }
static void *a_vdso(void *x) { sink += ask_the_time(); return x; }
static void *a_mutex(void *x) { sink += on_mutex(); return x; }
static void *a_cond(void *x) { sink += on_cond(); return x; }
static void *a_rwlock(void *x) { sink += on_rwlock(); return x; }
static void *a_barrier(void *x) { sink += on_barrier(); return x; }
static void *a_join(void *x) { sink += on_join(); return x; }
static void *an_once(void *x) { sink += in_once(); return x; }

static pthread_t start(void *(*entry)(void *), size_t stack) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack);
    pthread_t thread;
    if (pthread_create(&thread, &attributes, entry, NULL) != 0)
        abort();
    return thread;
}

static int sleeping(void) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        char path[320], text[64];
        snprintf(path, sizeof path, "/proc/self/task/%s/syscall", entry->d_name);
        int fd = open(path, O_RDONLY);
        ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
        if (fd >= 0)
            close(fd);
        text[length > 0 ? length : 0] = 0;
        count += strncmp(text, "202 ", 4) == 0;
    }
    closedir(tasks);
    return count;
}

int main(void) {
    sem_init(&never, 0, 0);
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_mutex_lock(&held);
    pthread_rwlock_wrlock(&rwlock);
    handle(0), handle(SA_ONSTACK);
    void *(*entries[])(void *) = {
        a_large_frame, a_variable_frame, an_aligned_frame, an_aligned_variable_frame, a_callback, a_handler,
        another_stack, a_mutex, a_cond, a_rwlock, a_barrier, an_once, a_recursion,
    };
    int threads = sizeof entries / sizeof entries[0];
    for (int i = 0; i < threads; i++)
        sleeper = start(entries[i], 256 * 1024);
    start(a_join, 256 * 1024);
    start(a_deep_one, 4 * 1024 * 1024);
    threads += 2;
    pthread_t interrupted[4] = {
        start(a_busy_one, 256 * 1024), start(a_busy_one, 256 * 1024),
        start(a_vdso, 256 * 1024), start(a_vdso, 256 * 1024),
    };
    while (spinning < 4)
        usleep(1000);
    for (int i = 0; i < 4; i++, usleep(3000))
        pthread_kill(interrupted[i], SIGUSR1);
    while (sleeping() != threads + 4)
        usleep(1000);
    puts("ok");
    fflush(stdout);
    // The program's first thread sleeps as the others do.
    return sleep_here();
}
