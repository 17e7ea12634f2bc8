// Memory that grows at places with known names, on commands from standard input; N is in MiB.
//
//   small N     malloc of 200 bytes, kept: the heap grows by brk
//   large N     malloc of 512 KiB, touched and kept: a mapping each
//   arena N     malloc of 200 bytes in a second thread, kept: glibc opens an arena by mprotect
//   map N       mmap, touched and kept
//   file N      read() of /dev/zero into a mapping, kept: the kernel touches the pages
//   realloc N   realloc of one large block in steps, kept: the kernel moves it by mremap
//   huge N      mmap with MADV_HUGEPAGE, touched and kept: a fault is 2 MiB where the kernel gives huge pages
//   churn N     mmap, touched and unmapped again: N MiB touched, nothing kept
//   free N      the last N blocks of `large` given back
//
// Each command is answered by `ok`.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
#define MIB (1L << 20)

static void *volatile last;
static char *blocks[100000];
static int block_count;

NOINLINE int leak_small(long bytes) {
    for (long done = 0; done < bytes; done += 208) {
        char *block = malloc(200);
        block[0] = 1;
        last = block;
    }
    return last != NULL;
}

NOINLINE int leak_large(long bytes) {
    for (long done = 0; done < bytes; done += MIB / 2) {
        char *block = malloc(MIB / 2);
        for (long at = 0; at < MIB / 2; at += 4096)
            block[at] = 1;
        blocks[block_count++] = block;
    }
    return block_count;
}

NOINLINE int leak_in_arena(long bytes) { return leak_small(bytes) + 1; }

static void *arena_thread(void *bytes) {
    leak_in_arena((long)bytes);
    return NULL;
}

NOINLINE int leak_map(long bytes) {
    char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (long at = 0; at < bytes; at += 4096)
        map[at] = 1;
    last = map;
    return map != NULL;
}

NOINLINE int leak_read(long bytes) {
    char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int zero = open("/dev/zero", O_RDONLY);
    long done = 0;
    while (done < bytes)
        done += read(zero, map + done, bytes - done);
    close(zero);
    return done > 0;
}

NOINLINE int leak_realloc(long bytes) {
    char *block = NULL, *after = NULL;
    for (long done = 0; done < bytes; done += MIB) {
        block = realloc(block, done + MIB);
        for (long at = done; at < done + MIB; at += 4096)
            block[at] = 1;
        // Some room that the next step will not find free, above or below.
        after = mmap(NULL, MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    last = block;
    return after != NULL;
}

NOINLINE int leak_huge(long bytes) {
    char *map = mmap(NULL, bytes + 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    map += -(unsigned long)map & (2 * MIB - 1);
    madvise(map, bytes, MADV_HUGEPAGE);
    for (long at = 0; at < bytes; at += 4096)
        map[at] = 1;
    last = map;
    return map != NULL;
}

NOINLINE int churn(long bytes) {
    for (long done = 0; done < bytes; done += MIB) {
        char *map = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (long at = 0; at < MIB; at += 4096)
            map[at] = 1;
        munmap(map, MIB);
    }
    return 1;
}

int main(void) {
    char command[32];
    long mib;
    while (scanf("%31s %ld", command, &mib) == 2) {
        long bytes = mib * MIB;
        int done = 0;
        if (strcmp(command, "small") == 0)
            done += leak_small(bytes);
        else if (strcmp(command, "large") == 0)
            done += leak_large(bytes);
        else if (strcmp(command, "map") == 0)
            done += leak_map(bytes);
        else if (strcmp(command, "file") == 0)
            done += leak_read(bytes);
        else if (strcmp(command, "realloc") == 0)
            done += leak_realloc(bytes);
        else if (strcmp(command, "huge") == 0)
            done += leak_huge(bytes);
        else if (strcmp(command, "churn") == 0)
            done += churn(bytes);
        else if (strcmp(command, "free") == 0)
            for (long i = 0; i < mib && block_count > 0; i++)
                free(blocks[--block_count]);
        else if (strcmp(command, "arena") == 0) {
            pthread_t thread;
            pthread_create(&thread, NULL, arena_thread, (void *)bytes);
            pthread_join(thread, NULL);
        }
        last = (void *)(long)done;
        puts("ok");
        fflush(stdout);
    }
    return 0;
}
