// Threads that wait for locks, with a holder that is known, on commands from standard input.
//
//   held KIND HOLDER N    a thread takes a mutex and goes on as HOLDER says; N threads wait for it
//                         KIND: normal adaptive recursive errorcheck robust pi pi_robust shared shared_pi
//                         HOLDER: reads (sleeps in read) naps (in nanosleep) spins (runs) ends (with the lock) waits
//                         (for a condition)
//   two KIND | three KIND two, three threads that wait for each other in a circle
//   self KIND             a thread that waits for the mutex it has
//   join                  a thread joins another, which waits for the mutex that the first has
//   joins                 three threads that join each other
//   behind N              N threads that wait for a mutex of the latest circle
//   timed                 two threads that lock what the other has, with a timeout of an hour: no deadlock
//   other N               a child process takes a shared mutex, N threads of this one wait
//   inconsistent N        the owner of a robust mutex died, its heir has not said that all is well; N threads wait
//   rwlock N              a thread has a rwlock for writing, N threads want to read and N to write
//   readers N             three threads have a rwlock for reading, N threads want to write
//   sem N | cond N | barrier N | joined N | once N   N threads wait at each
//   churn N               N threads contend for four mutexes, in order, for ever
//   quit
//
// Each command is answered by `ok` once all threads it started are where they shall be.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
#define MOST 512

struct circle {
    pthread_mutex_t *has, *wants;
    pthread_barrier_t *start;
    int timed;
};

static volatile long sink, running = 1;
/* Threads that are meant to run, and whether they come and go. */
static long awake;
static int churns;
static int silent[2];
static pthread_mutex_t *latest;
static pthread_mutex_t cond_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static sem_t never;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void name(const char *text) { prctl(PR_SET_NAME, text); }

static long tid(void) { return syscall(SYS_gettid); }

static pthread_t start(void *(*body)(void *), void *argument) {
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    if (pthread_create(&thread, &attributes, body, argument) != 0)
        fail("pthread_create");
    return thread;
}

static void *room(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        fail("mmap");
    return at;
}

static pthread_mutex_t *mutex(const char *kind) {
    pthread_mutex_t *made = room(sizeof *made);
    pthread_mutexattr_t of;
    pthread_mutexattr_init(&of);
    if (strstr(kind, "recursive"))
        pthread_mutexattr_settype(&of, PTHREAD_MUTEX_RECURSIVE);
    if (strstr(kind, "errorcheck"))
        pthread_mutexattr_settype(&of, PTHREAD_MUTEX_ERRORCHECK);
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
    if (strstr(kind, "adaptive"))
        pthread_mutexattr_settype(&of, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
    if (strstr(kind, "robust"))
        pthread_mutexattr_setrobust(&of, PTHREAD_MUTEX_ROBUST);
    if (strstr(kind, "shared"))
        pthread_mutexattr_setpshared(&of, PTHREAD_PROCESS_SHARED);
    if (strstr(kind, "pi"))
        pthread_mutexattr_setprotocol(&of, PTHREAD_PRIO_INHERIT);
    if (pthread_mutex_init(made, &of) != 0)
        fail("pthread_mutex_init");
    return made;
}

/* Holders. */

struct holder {
    pthread_mutex_t *mutex;
    const char *does;
    volatile int has;
};

NOINLINE long hold_and_read(void) {
    char byte;
    while (read(silent[0], &byte, 1) != 1)
        sink++;
    return sink;
}

NOINLINE long hold_and_nap(void) {
    struct timespec day = {86400, 0};
    while (nanosleep(&day, NULL) != 0)
        sink++;
    return sink;
}

NOINLINE long hold_and_spin(void) {
    while (running)
        sink++;
    return sink;
}

NOINLINE long hold_and_wait(void) {
    pthread_mutex_lock(&cond_mutex);
    while (running)
        pthread_cond_wait(&cond, &cond_mutex);
    return pthread_mutex_unlock(&cond_mutex);
}

static void *hold(void *argument) {
    struct holder *holder = argument;
    name("the holder");
    if (pthread_mutex_lock(holder->mutex) != 0)
        fail("pthread_mutex_lock");
    const char *does = holder->does;
    holder->has = 1;
    if (strcmp(does, "reads") == 0)
        sink += hold_and_read();
    else if (strcmp(does, "naps") == 0)
        sink += hold_and_nap();
    else if (strcmp(does, "spins") == 0)
        awake++, sink += hold_and_spin();
    else if (strcmp(does, "waits") == 0)
        sink += hold_and_wait();
    return NULL;
}

NOINLINE long want_the_mutex(pthread_mutex_t *wanted) {
    pthread_mutex_lock(wanted);
    sink++;
    return pthread_mutex_unlock(wanted);
}

static void *want(void *argument) {
    name("a waiter");
    return (void *)want_the_mutex(argument);
}

static void held(const char *kind, const char *does, int n) {
    struct holder *holder = calloc(1, sizeof *holder);
    *holder = (struct holder){mutex(kind), strdup(does), 0};
    pthread_t thread = start(hold, holder);
    while (!holder->has)
        usleep(1000);
    if (strcmp(does, "ends") == 0)
        pthread_join(thread, NULL);
    while (n-- > 0)
        start(want, holder->mutex);
}

/* Circles. */

NOINLINE long take_the_next(struct circle *of) {
    if (of->timed) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 3600;
        sink += pthread_mutex_timedlock(of->wants, &until);
    } else {
        pthread_mutex_lock(of->wants);
    }
    sink++;
    return sink;
}

NOINLINE long take_both(struct circle *of) {
    pthread_mutex_lock(of->has);
    pthread_barrier_wait(of->start);
    sink += take_the_next(of);
    return pthread_mutex_unlock(of->has);
}

static void *go_round(void *argument) {
    char text[16];
    snprintf(text, sizeof text, "round %ld", tid() % 1000);
    name(text);
    return (void *)take_both(argument);
}

static void circle(const char *kind, unsigned length, int timed) {
    pthread_barrier_t *barrier = calloc(1, sizeof *barrier);
    pthread_mutex_t *all[3];
    pthread_barrier_init(barrier, NULL, length);
    for (unsigned i = 0; i < length; i++)
        all[i] = mutex(kind);
    for (unsigned i = 0; i < length; i++) {
        struct circle *one = calloc(1, sizeof *one);
        *one = (struct circle){all[i], all[(i + 1) % length], barrier, timed};
        start(go_round, one);
    }
    latest = all[0];
}

NOINLINE long take_it_again(pthread_mutex_t *mine) {
    pthread_mutex_lock(mine);
    sink++;
    pthread_mutex_lock(mine);
    return ++sink;
}

static void *lock_itself(void *argument) {
    name("selfish");
    return (void *)take_it_again(argument);
}

static pthread_mutex_t *join_mutex;

static void *wait_for_the_joiner(void *ignored) {
    (void)ignored;
    name("joined");
    return (void *)want_the_mutex(join_mutex);
}

NOINLINE long join_with_the_lock(void) {
    pthread_mutex_lock(join_mutex);
    pthread_t thread = start(wait_for_the_joiner, NULL);
    sink += pthread_join(thread, NULL);
    return pthread_mutex_unlock(join_mutex);
}

static void *joiner(void *ignored) {
    (void)ignored;
    name("joiner");
    return (void *)join_with_the_lock();
}

static pthread_t ring[3];
static pthread_barrier_t ring_start;

NOINLINE long join_the_next(long i) { return sink += pthread_join(ring[(i + 1) % 3], NULL); }

static void *join_round(void *argument) {
    name("ring");
    pthread_barrier_wait(&ring_start);
    return (void *)join_the_next((long)argument);
}

/* Locks of other kinds. */

static pthread_rwlock_t *rwlock;
static volatile int rwlock_held;

NOINLINE long want_to_read(pthread_rwlock_t *of) {
    pthread_rwlock_rdlock(of);
    sink++;
    return pthread_rwlock_unlock(of);
}

NOINLINE long want_to_write(pthread_rwlock_t *of) {
    pthread_rwlock_wrlock(of);
    sink++;
    return pthread_rwlock_unlock(of);
}

static void *reader(void *of) {
    name("reader");
    return (void *)want_to_read(of);
}

static void *writer(void *of) {
    name("writer");
    return (void *)want_to_write(of);
}

static void *have_it_written(void *of) {
    name("rw holder");
    pthread_rwlock_wrlock(of);
    rwlock_held++;
    return (void *)hold_and_read();
}

static void *have_it_read(void *of) {
    name("rd holder");
    pthread_rwlock_rdlock(of);
    __sync_fetch_and_add(&rwlock_held, 1);
    return (void *)hold_and_read();
}

static void *rwlock_of(void *(*holder)(void *), int holders) {
    rwlock = calloc(1, sizeof *rwlock);
    pthread_rwlock_init(rwlock, NULL);
    rwlock_held = 0;
    for (int i = 0; i < holders; i++)
        start(holder, rwlock);
    while (rwlock_held < holders)
        usleep(1000);
    return rwlock;
}

NOINLINE long wait_for_news(void) {
    pthread_mutex_lock(&cond_mutex);
    while (running)
        pthread_cond_wait(&cond, &cond_mutex);
    return pthread_mutex_unlock(&cond_mutex);
}

static void *on_cond(void *ignored) { return (void)ignored, (void *)wait_for_news(); }

NOINLINE long wait_for_a_token(void) {
    while (sem_wait(&never) != 0)
        sink++;
    return sink;
}

static void *on_sem(void *ignored) { return (void)ignored, (void *)wait_for_a_token(); }

NOINLINE long meet_the_others(pthread_barrier_t *at) { return sink += pthread_barrier_wait(at); }

static void *on_barrier(void *at) { return (void *)meet_the_others(at); }

NOINLINE long see_it_end(pthread_t thread) { return sink += pthread_join(thread, NULL); }

static void *nap(void *ignored) { return (void)ignored, (void *)hold_and_nap(); }

static void *on_join(void *ignored) { return (void)ignored, (void *)see_it_end(start(nap, NULL)); }

static pthread_once_t once = PTHREAD_ONCE_INIT;
static volatile int once_begun;

static void begin_once(void) {
    once_begun = 1;
    hold_and_read();
}

NOINLINE long do_it_once(void) { return sink += pthread_once(&once, begin_once); }

static void *on_once(void *ignored) { return (void)ignored, (void *)do_it_once(); }

static void *die_with(void *robust) {
    pthread_mutex_lock(robust);
    return NULL;
}

static volatile int inherited;

static void *inherit(void *robust) {
    name("heir");
    if (pthread_mutex_lock(robust) != EOWNERDEAD)
        fail("no heir");
    inherited = 1;
    return (void *)hold_and_read();
}

static pthread_mutex_t churned[4];

static void *churn(void *argument) {
    unsigned at = (unsigned)(long)argument;
    name("churn");
    while (running) {
        unsigned first = at % 3, second = first + 1 + at % (3 - first);
        at = at * 1103515245 + 12345;
        pthread_mutex_lock(&churned[first]);
        pthread_mutex_lock(&churned[second]);
        for (int i = 0; i < 50; i++)
            sink++;
        if (at % 16 == 0)
            usleep(200);
        pthread_mutex_unlock(&churned[second]);
        pthread_mutex_unlock(&churned[first]);
    }
    return NULL;
}

static void other(int n) {
    pthread_mutex_t *shared = mutex("shared");
    int *has = room(sizeof *has);
    if (fork() == 0) {
        name("neighbour");
        prctl(PR_SET_PDEATHSIG, 9);
        pthread_mutex_lock(shared);
        *(volatile int *)has = 1;
        hold_and_nap();
    }
    while (!*(volatile int *)has)
        usleep(1000);
    while (n-- > 0)
        start(want, shared);
}

/* How often all threads together went to sleep; -1 while more of them are awake than shall be. */
static long sleeps(void) {
    char path[64], line[512];
    long sum = 0, up = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *task; (task = readdir(tasks));) {
        long id = atol(task->d_name), process = 0, times = 0;
        int asleep = 0;
        snprintf(path, sizeof path, "/proc/self/task/%ld/status", id);
        FILE *status = fopen(path, "r");
        while (status && fgets(line, sizeof line, status)) {
            asleep |= strncmp(line, "State:\tS", 8) == 0;
            sscanf(line, "Tgid: %ld", &process);
            sscanf(line, "voluntary_ctxt_switches: %ld", &times);
        }
        if (status)
            fclose(status);
        /* This is the main thread, which is awake. */
        if (id == 0 || id == process)
            continue;
        sum += times;
        up += !asleep;
    }
    closedir(tasks);
    return up > awake ? -1 : sum;
}

/* Waits until nobody moves any more. */
static void settle(void) {
    long before = -1;
    for (int times = 0, calm = 0; times < 500 && calm < 3; times++) {
        long now = sleeps();
        calm = now >= 0 && (now == before || churns) ? calm + 1 : 0;
        before = now;
        usleep(20 * 1000);
    }
}

int main(void) {
    char line[128], command[32], kind[32], does[32];
    signal(SIGPIPE, SIG_DFL);
    if (pipe(silent) != 0)
        fail("pipe");
    sem_init(&never, 0, 0);
    pthread_barrier_init(&ring_start, NULL, 4);
    for (int i = 0; i < 4; i++)
        pthread_mutex_init(&churned[i], NULL);
    while (fgets(line, sizeof line, stdin)) {
        int n = 0;
        kind[0] = does[0] = 0;
        if (sscanf(line, "held %31s %31s %d", kind, does, &n) == 3) {
            held(kind, does, n > MOST ? MOST : n);
        } else if (sscanf(line, "two %31s", kind) == 1) {
            circle(kind, 2, 0);
        } else if (sscanf(line, "three %31s", kind) == 1) {
            circle(kind, 3, 0);
        } else if (sscanf(line, "self %31s", kind) == 1) {
            latest = mutex(kind);
            start(lock_itself, latest);
        } else if (strcmp(line, "quit\n") == 0) {
            return 0;
        } else if (sscanf(line, "%31s %d", command, &n) >= 1) {
            n = n > MOST ? MOST : n;
            if (strcmp(command, "timed") == 0)
                circle("normal", 2, 1);
            if (strcmp(command, "join") == 0) {
                join_mutex = mutex("normal");
                start(joiner, NULL);
            }
            if (strcmp(command, "joins") == 0) {
                for (long i = 0; i < 3; i++)
                    ring[i] = start(join_round, (void *)i);
                pthread_barrier_wait(&ring_start);
            }
            if (strcmp(command, "behind") == 0)
                for (int i = 0; i < n; i++)
                    start(want, latest);
            if (strcmp(command, "other") == 0)
                other(n);
            if (strcmp(command, "inconsistent") == 0) {
                pthread_mutex_t *robust = mutex("robust");
                pthread_join(start(die_with, robust), NULL);
                start(inherit, robust);
                while (!inherited)
                    usleep(1000);
                for (int i = 0; i < n; i++)
                    start(want, robust);
            }
            if (strcmp(command, "rwlock") == 0) {
                void *of = rwlock_of(have_it_written, 1);
                for (int i = 0; i < n; i++)
                    start(reader, of), start(writer, of);
            }
            if (strcmp(command, "readers") == 0) {
                void *of = rwlock_of(have_it_read, 3);
                for (int i = 0; i < n; i++)
                    start(writer, of);
            }
            if (strcmp(command, "barrier") == 0) {
                pthread_barrier_t *at = calloc(1, sizeof *at);
                pthread_barrier_init(at, NULL, (unsigned)n + 1);
                for (int i = 0; i < n; i++)
                    start(on_barrier, at);
            }
            if (strcmp(command, "once") == 0) {
                start(on_once, NULL);
                while (!once_begun)
                    usleep(1000);
            }
            if (strcmp(command, "churn") == 0)
                churns = 1, awake += n;
            if (strcmp(command, "churn") == 0)
                for (long i = 0; i < n; i++)
                    start(churn, (void *)i);
            for (int i = 0; i < n; i++) {
                if (strcmp(command, "sem") == 0)
                    start(on_sem, NULL);
                if (strcmp(command, "cond") == 0)
                    start(on_cond, NULL);
                if (strcmp(command, "joined") == 0)
                    start(on_join, NULL);
                if (strcmp(command, "once") == 0)
                    start(on_once, NULL);
            }
        }
        settle();
        puts("ok");
        fflush(stdout);
    }
    return 0;
}
