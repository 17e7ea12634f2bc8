// A Go program whose C keeps what it is given: 32 KiB, fifty times a second. Its own heap goes up and down, and nothing
// of that is kept. Says `ready`.
package main

/*
#include <stdlib.h>
#include <string.h>

static void *kept;

__attribute__((noinline)) void keep_in_c(size_t bytes) {
	void **one = malloc(bytes);
	memset(one, 1, bytes);
	*one = kept;
	kept = one;
}
*/
import "C"

import (
	"fmt"
	"time"
)

var sink []byte

func main() {
	fmt.Println("ready")
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		C.keep_in_c(32 << 10)
		for i := 0; i < 4; i++ {
			sink = make([]byte, 64<<10)
		}
	}
}
