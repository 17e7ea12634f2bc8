// mapper: prints "ready 0"; a line on stdin has it change its memory map by known amounts, then print "done".
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (1L << 20)

static void say(const char *text) {
    if (write(1, text, strlen(text)) < 0) _exit(3);
}

int main(void) {
    char line[16];
    sbrk(MIB);  // so that there is a heap from the start
    say("ready 0\n");
    while (read(0, line, sizeof line) > 0) {
        int rw = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
        char *a = mmap(NULL, 4 * MIB, rw, flags, -1, 0);
        char *b = mmap(NULL, 5000, rw, flags, -1, 0);              // two pages
        char *reserve = mmap(NULL, 64 * MIB, PROT_NONE, flags, -1, 0);
        mprotect(reserve, 3 * MIB, rw);                            // made usable
        mprotect(reserve, MIB, PROT_NONE);                         // and part of it not
        memset(a, 1, MIB);
        madvise(a, 2 * MIB, MADV_DONTNEED);
        madvise(a, MIB, MADV_WILLNEED);                            // gives nothing back
        a = mremap(a, 4 * MIB, 9 * MIB, MREMAP_MAYMOVE);           // +5
        a = mremap(a, 9 * MIB, 7 * MIB, MREMAP_MAYMOVE);           // -2
        munmap(b, 5000);
        munmap(a, 1 * MIB);
        munmap((void *)1, 4096);                                   // fails
        sbrk(6 * MIB);
        sbrk(-2 * MIB);
        say("done\n");
    }
    return 0;
}
