// Command many holds many goroutines still, and knows how long the scheduler kept it waiting.
//
//	many N [different]
//
// Starts N goroutines that wait on one channel, all with the same stack or each with one of its own, and
// prints "ready PID". Then a line on standard input is an order:
//
//	begin   forget the worst gap
//	end     print the worst gap in microseconds since begin: how much later than asked a timer fired
//	dump    write the own dump of all goroutines (debug=2) to nowhere, print "done"
//
// Ends when standard input is closed.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxGoroutines = 2_000_000
	tick          = time.Millisecond
)

var never = make(chan int)

//go:noinline
func rest(ready *sync.WaitGroup) {
	ready.Done()
	<-never
}

//go:noinline
func inner(ready *sync.WaitGroup) { rest(ready) }

// left and right call each other by the bits of path: as many stacks as paths.
//
//go:noinline
func left(path, depth int, ready *sync.WaitGroup) { descend(path, depth, ready) }

//go:noinline
func right(path, depth int, ready *sync.WaitGroup) { descend(path, depth, ready) }

func descend(path, depth int, ready *sync.WaitGroup) {
	if depth == 0 {
		rest(ready)
	} else if path&1 == 0 {
		left(path>>1, depth-1, ready)
	} else {
		right(path>>1, depth-1, ready)
	}
}

var worst atomic.Int64

func watch() {
	for {
		began := time.Now()
		time.Sleep(tick)
		if gap := int64(time.Since(began) - tick); gap > worst.Load() {
			worst.Store(gap)
		}
	}
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: many N [different]")
		os.Exit(2)
	}
	count, err := strconv.Atoi(os.Args[1])
	if err != nil || count < 0 || count > maxGoroutines {
		fmt.Fprintf(os.Stderr, "many: 0 to %d goroutines\n", maxGoroutines)
		os.Exit(2)
	}
	var ready sync.WaitGroup
	ready.Add(count)
	for i := 0; i < count; i++ {
		if len(os.Args) > 2 {
			go left(i, 17, &ready)
		} else {
			go inner(&ready)
		}
	}
	ready.Wait()
	go watch()
	fmt.Println("ready", os.Getpid())
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		switch orders.Text() {
		case "begin":
			worst.Store(0)
		case "end":
			fmt.Println(worst.Load() / 1000)
		case "dump":
			pprof.Lookup("goroutine").WriteTo(io.Discard, 2)
			fmt.Println("done")
		}
	}
}
