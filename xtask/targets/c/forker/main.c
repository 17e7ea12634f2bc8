// forker: prints "ready 0", and for each line "N" on stdin has N children, one after the other, that end at once;
// then prints "done".
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    int count;
    puts("ready 0");
    fflush(stdout);
    while (scanf("%d", &count) == 1) {
        for (int i = 0; i < count; i++) {
            pid_t child = fork();
            if (child == 0) _exit(0);
            if (child < 0) return 1;
            waitpid(child, NULL, 0);
        }
        puts("done");
        fflush(stdout);
    }
    return 0;
}
