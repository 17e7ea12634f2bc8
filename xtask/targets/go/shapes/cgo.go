//go:build cgo

package main

/*
#include <unistd.h>

extern void goBlocks(void);

static void sleepInC(void) { for (;;) sleep(3600); }
static void callBack(void) { goBlocks(); }
*/
import "C"

import "sync/atomic"

var turn atomic.Int32

// callsC blocks half of its callers in C, and half in Go that C called.
func callsC() {
	if turn.Add(1)%2 == 0 {
		C.sleepInC()
	}
	C.callBack()
}

//export goBlocks
func goBlocks() { block() }
