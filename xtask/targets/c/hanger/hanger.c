// A process that hangs whoever reads it: the middle of a sleeping thread's stack lies on pages that userfaultfd
// watches and nobody ever fills. As a target on a dead network file system would be, but one that can be killed.
#define _GNU_SOURCE
#include <alloca.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, ROOM = 16 * PAGE, STACK = 64 * PAGE };

static volatile uintptr_t middle_frame;
static uint32_t word, ready;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

__attribute__((noinline)) static void inner(void) {
    volatile char *room = alloca(ROOM);
    room[0] = 1;
    __atomic_store_n(&ready, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &ready, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    for (;;) syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    room[1] = 1;
}

__attribute__((noinline)) static void middle(void) {
    volatile char here = 1;
    middle_frame = (uintptr_t)&here;
    inner();
    here = 2;
}

__attribute__((noinline)) static void outer(void) {
    volatile char *room = alloca(ROOM);
    room[0] = 1;
    middle();
    room[1] = 1;
}

static void *sleeper(void *unused) {
    outer();
    return unused;
}

int main(void) {
    char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) fail("mmap");
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (pthread_attr_setstack(&attributes, stack, STACK)) fail("pthread_attr_setstack");
    pthread_t thread;
    if (pthread_create(&thread, &attributes, sleeper, NULL)) fail("pthread_create");
    while (!__atomic_load_n(&ready, __ATOMIC_SEQ_CST)) usleep(1000);
    usleep(50000);  // it sleeps by now

    int watch = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    if (watch < 0) fail("userfaultfd");
    struct uffdio_api api = {.api = UFFD_API};
    if (ioctl(watch, UFFDIO_API, &api)) fail("UFFDIO_API");
    uintptr_t start = (middle_frame & ~(uintptr_t)(PAGE - 1)) - PAGE;
    struct uffdio_register range = {.range = {.start = start, .len = 3 * PAGE},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(watch, UFFDIO_REGISTER, &range)) fail("UFFDIO_REGISTER");
    if (madvise((void *)start, 3 * PAGE, MADV_DONTNEED)) fail("madvise");
    printf("hangs\n");
    fflush(stdout);
    for (;;) pause();
}
