// Allocates at known rates: two functions that keep what they allocate, among many that give it back.
//
//   allocator THREADS SECONDS [healthy]
//
// Each thread churns; the first also keeps, unless it is `healthy`. A line on standard input is answered with the
// bytes that keep_small and keep_large have kept; `f` with the pid of a child that is forked and allocates too.
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static atomic_ulong small_bytes, large_bytes;
static atomic_bool over;
static int healthy;
static void *volatile kept;

static __attribute__((noinline)) void keep_small(void) {
  void **block = malloc(200);
  block[0] = kept;
  kept = block;
  atomic_fetch_add(&small_bytes, 200);
}

static __attribute__((noinline)) void keep_large(void) {
  // Grown step by step, as buffers are.
  void **block = calloc(1, 1000);
  block = realloc(block, 3000);
  block[0] = kept;
  kept = block;
  atomic_fetch_add(&large_bytes, 3000);
}

static __attribute__((noinline)) void churn(unsigned *seed) {
  void *blocks[16];
  for (int i = 0; i < 16; i++) {
    size_t size = 16 + rand_r(seed) % 2000;
    void *aligned = NULL;
    switch (i % 5) {
    case 0: blocks[i] = calloc(2, size); break;
    case 1: blocks[i] = realloc(NULL, size); break;
    case 2: blocks[i] = posix_memalign(&aligned, 64, size) ? NULL : aligned; break;
    default: blocks[i] = malloc(size);
    }
    memset(blocks[i], 1, 16);
  }
  for (int i = 0; i < 16; i++) {
    if (i % 4 == 0)
      blocks[i] = realloc(blocks[i], 4000);
    free(blocks[i]);
  }
}

static void nap(long microseconds) {
  struct timespec time = {0, microseconds * 1000};
  nanosleep(&time, NULL);
}

static void *work(void *first) {
  unsigned seed = (unsigned)(uintptr_t)&seed;
  while (!atomic_load(&over)) {
    churn(&seed);
    if (first && !healthy) {
      for (int i = 0; i < 60; i++)
        keep_small();
      for (int i = 0; i < 8; i++)
        keep_large();
    }
    nap(1000);
  }
  return NULL;
}

static int has(int count, char **words, const char *word) {
  for (int i = 3; i < count; i++)
    if (!strcmp(words[i], word))
      return 1;
  return 0;
}

int main(int count, char **words) {
  if (count < 3)
    return 2;
  int threads = atoi(words[1]), seconds = atoi(words[2]);
  healthy = has(count, words, "healthy");
  alarm((unsigned)seconds);
  pthread_t all[64];
  if (threads < 1 || threads > 64)
    return 2;
  for (int i = 0; i < threads; i++)
    pthread_create(&all[i], NULL, work, i == 0 ? &all : NULL);
  char line[16];
  while (fgets(line, sizeof line, stdin)) {
    if (line[0] == 'f') {
      pid_t child = fork();
      if (child == 0) {
        alarm((unsigned)seconds);
        work(NULL);
        _exit(0);
      }
      printf("%d\n", child);
      fflush(stdout);
      continue;
    }
    printf("%lu %lu\n", atomic_load(&small_bytes), atomic_load(&large_bytes));
    fflush(stdout);
  }
  atomic_store(&over, 1);
  for (int i = 0; i < threads; i++)
    pthread_join(all[i], NULL);
  return 0;
}
