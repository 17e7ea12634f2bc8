// loops: for each line "WHAT N" on stdin runs a loop N times and prints the seconds of CPU it took:
//   getppid (a system call that does nothing), fault (4 pages mapped, touched, unmapped),
//   mmap (1 page mapped and unmapped, not touched), malloc (64 bytes allocated and freed).
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// Otherwise the compiler leaves out a pair that does nothing.
static void *volatile block;

int main(void) {
    char what[16];
    int rounds;
    puts("ready 0");
    fflush(stdout);
    while (scanf("%15s %d", what, &rounds) == 2) {
        struct timespec begun, ended;
        int fault = !strcmp(what, "fault"), map = fault || !strcmp(what, "mmap");
        int allocate = !strcmp(what, "malloc");
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begun);
        for (int i = 0; i < rounds; i++) {
            if (map) {
                char *memory = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                if (fault)
                    for (int page = 0; page < 4; page++) memory[page * 4096] = 1;
                munmap(memory, 16384);
            } else if (allocate) {
                block = malloc(64);
                free(block);
            } else {
                syscall(SYS_getppid);
            }
        }
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ended);
        printf("%.6f\n", (ended.tv_sec - begun.tv_sec) + (ended.tv_nsec - begun.tv_nsec) / 1e9);
        fflush(stdout);
    }
    return 0;
}
