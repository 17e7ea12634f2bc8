// grow: prints "ready 0", then for each line on stdin
//   keep MIB    maps and touches so much and keeps it
//   churn MIB   maps, touches and unmaps 1 MiB so many times
//   exec        executes itself again
//   fork        has a child that ends at once
// and prints "done".
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((noinline)) static char *touch(size_t bytes) {
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < bytes; i += 4096) memory[i] = 1;
    return memory;
}
__attribute__((noinline)) static void keep_here(size_t mib) {
    touch(mib << 20);
    __asm__ volatile("" ::: "memory");
}
__attribute__((noinline)) static void churn_here(size_t mib) {
    for (size_t i = 0; i < mib; i++) munmap(touch(1 << 20), 1 << 20);
    __asm__ volatile("" ::: "memory");
}

int main(int argc, char **argv) {
    (void)argc;
    printf("ready 0\n");
    fflush(stdout);
    char line[64], what[16];
    while (fgets(line, sizeof line, stdin)) {
        int mib = 0;
        if (sscanf(line, "%15s %d", what, &mib) < 1) return 2;
        if (!strcmp(what, "keep")) keep_here(mib);
        if (!strcmp(what, "churn")) churn_here(mib);
        if (!strcmp(what, "exec")) execv("/proc/self/exe", argv);
        if (!strcmp(what, "fork")) {
            if (!fork()) _exit(0);
            wait(NULL);
        }
        puts("done");
        fflush(stdout);
    }
    return 7;
}
