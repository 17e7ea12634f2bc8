// Starts a thread ten times a second that waits for a mutex which is never given back: threads pile up, 400 at most.
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static volatile int through;

__attribute__((noinline, noclone)) int wait_for_the_gate(void) {
    pthread_mutex_lock(&gate);
    through++;
    return pthread_mutex_unlock(&gate);
}

static void *serve(void *unused) {
    (void)unused;
    through += wait_for_the_gate();
    return NULL;
}

int main(void) {
    pthread_mutex_lock(&gate);
    puts("ready");
    fflush(stdout);
    for (int i = 0; i < 400; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, NULL) != 0)
            return 1;
        usleep(100 * 1000);
    }
    return 0;
}
