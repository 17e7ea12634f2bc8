// Threads that sleep at places with known names, on commands from standard input.
//
//   mutex N | cond N | sem N    start N threads that block there for ever
//   work N                      start N threads that wait for work at a semaphore of their own
//   wake N                      give each worker one job, N times over
//   timed N                     start N threads that wait with a timeout of an hour
//   free N                      let N of the threads at `sem` go
//   deep N                      start N threads that block below a recursion of 100
//   handler N                   start N threads that block inside a signal handler
//   quit                        exit
//
// Each command is answered by `ok` once all threads it started sleep (or have gone).
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
#define MAX_WORKERS 1000

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t cond_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static sem_t never, deep_sem, handler_sem, timed_sem;
static sem_t jobs[MAX_WORKERS], done;
static int workers;
static volatile int sink;

NOINLINE int take_the_mutex(void) {
    pthread_mutex_lock(&mutex);
    sink++;
    return pthread_mutex_unlock(&mutex);
}

NOINLINE int wait_for_the_condition(void) {
    pthread_mutex_lock(&cond_mutex);
    for (;;)
        sink += pthread_cond_wait(&cond, &cond_mutex);
}

NOINLINE int wait_for_the_semaphore(void) {
    while (sem_wait(&never) != 0)
        sink++;
    return sink;
}

NOINLINE int wait_an_hour(void) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 3600;
    while (sem_timedwait(&timed_sem, &until) != 0)
        sink++;
    return sink;
}

NOINLINE int recurse(int depth) {
    if (depth == 0) {
        while (sem_wait(&deep_sem) != 0)
            sink++;
        return sink;
    }
    int below = recurse(depth - 1);
    sink++;
    return below + 1;
}

NOINLINE void handle_signal(int signal) {
    (void)signal;
    while (sem_wait(&handler_sem) != 0)
        sink++;
}

NOINLINE int get_interrupted(void) {
    raise(SIGUSR1);
    return sink++;
}

NOINLINE int do_jobs(sem_t *job) {
    for (;;) {
        while (sem_wait(job) != 0)
            sink++;
        sem_post(&done);
    }
}

// Each entry does something after its call, so that none is a tail call.
static void *on_mutex(void *arg) { sink += take_the_mutex(); return arg; }
static void *on_cond(void *arg) { sink += wait_for_the_condition(); return arg; }
static void *on_sem(void *arg) { sink += wait_for_the_semaphore(); return arg; }
static void *on_time(void *arg) { sink += wait_an_hour(); return arg; }
static void *in_depth(void *arg) { sink += recurse(100); return arg; }
static void *in_handler(void *arg) { sink += get_interrupted(); return arg; }
static void *worker(void *arg) { sink += do_jobs(arg); return arg; }

static int threads_in_state(int futex_only) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.')
            continue;
        char path[320], text[64];
        snprintf(path, sizeof path, "/proc/self/task/%s/syscall", entry->d_name);
        int fd = open(path, O_RDONLY);
        ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
        if (fd >= 0)
            close(fd);
        text[length > 0 ? length : 0] = 0;
        if (length > 0 && (!futex_only || strncmp(text, "202 ", 4) == 0 || strncmp(text, "98 ", 3) == 0))
            count++;
    }
    closedir(tasks);
    return count;
}

static void start(void *(*entry)(void *), void *argument) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    if (pthread_create(&thread, &attributes, entry, argument) != 0)
        abort();
    pthread_attr_destroy(&attributes);
}

int main(void) {
    signal(SIGUSR1, handle_signal);
    sem_init(&never, 0, 0), sem_init(&deep_sem, 0, 0), sem_init(&handler_sem, 0, 0);
    sem_init(&timed_sem, 0, 0), sem_init(&done, 0, 0);
    pthread_mutex_lock(&mutex);
    int sleeping = 0, number = 0;
    char command[32];
    while (scanf("%31s", command) == 1) {
        if (strcmp(command, "quit") == 0)
            return 0;
        if (scanf("%d", &number) != 1)
            return 1;
        void *(*entry)(void *) = strcmp(command, "mutex") == 0     ? on_mutex
                                 : strcmp(command, "cond") == 0    ? on_cond
                                 : strcmp(command, "sem") == 0     ? on_sem
                                 : strcmp(command, "timed") == 0   ? on_time
                                 : strcmp(command, "deep") == 0    ? in_depth
                                 : strcmp(command, "handler") == 0 ? in_handler
                                                                   : NULL;
        if (entry) {
            for (int i = 0; i < number; i++)
                start(entry, NULL);
            sleeping += number;
        } else if (strcmp(command, "work") == 0) {
            for (int i = 0; i < number && workers < MAX_WORKERS; i++, workers++) {
                sem_init(&jobs[workers], 0, 0);
                start(worker, &jobs[workers]);
                sleeping++;
            }
        } else if (strcmp(command, "wake") == 0) {
            for (int i = 0; i < number; i++) {
                for (int j = 0; j < workers; j++)
                    sem_post(&jobs[j]);
                for (int j = 0; j < workers; j++)
                    sem_wait(&done);
            }
        } else if (strcmp(command, "free") == 0) {
            for (int i = 0; i < number; i++)
                sem_post(&never);
            sleeping -= number;
        }
        while (threads_in_state(1) != sleeping || threads_in_state(0) != sleeping + 1)
            usleep(1000);
        puts("ok");
        fflush(stdout);
    }
    return 0;
}
