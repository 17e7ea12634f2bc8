// Goroutines that call into C, and C waits there for ever; beside them a thread that C made itself, and idle ones
// of Go. Says `ok` once all of them wait.
package main

/*
#cgo CFLAGS: -O2 -fomit-frame-pointer
#cgo LDFLAGS: -lpthread
#include <pthread.h>
#include <semaphore.h>

static sem_t never;
static int waiting;

__attribute__((noinline)) static int sleep_in_c(void) {
	__atomic_add_fetch(&waiting, 1, __ATOMIC_SEQ_CST);
	while (sem_wait(&never) != 0)
		;
	return waiting;
}

__attribute__((noinline)) int wait_in_c(int n) {
	volatile char frame[200];
	frame[n] = 1;
	return sleep_in_c() + frame[n];
}

static void *own_thread(void *x) {
	return (char *)x + wait_in_c(3);
}

static void start(void) {
	pthread_t thread;
	sem_init(&never, 0, 0);
	pthread_create(&thread, 0, own_thread, 0);
}

static int begun(void) {
	return __atomic_load_n(&waiting, __ATOMIC_SEQ_CST);
}
*/
import "C"

import (
	"fmt"
	"time"
)

//go:noinline
func callC(n int) int {
	got := int(C.wait_in_c(C.int(n)))
	return got + 1
}

func main() {
	C.start()
	for i := 0; i < 3; i++ {
		i := i
		go func() { fmt.Println(callC(i)) }()
	}
	for C.begun() < 4 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	fmt.Println("ok")
	select {}
}
