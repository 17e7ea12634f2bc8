// Command leaker starts a goroutine 40 times a second that holds a buffer of 32 KiB and sends on a channel.
//
//	leaker leak      nobody receives: each stays for ever
//	leaker healthy   each is received from, and its buffer freed
//
// A line on standard input is answered with how many it has started and in how many seconds.
// Ends by itself after five minutes.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	perSecond = 40
	held      = 32 << 10
)

type answer struct{ buffer []byte }

//go:noinline
func ask(answers chan *answer) {
	a := &answer{buffer: make([]byte, held)}
	for i := range a.buffer {
		a.buffer[i] = 1
	}
	answers <- a
	runtime.KeepAlive(a)
}

func serve(healthy bool) {
	answers := make(chan *answer)
	go ask(answers)
	if healthy {
		<-answers
	}
}

func main() {
	healthy := len(os.Args) > 1 && os.Args[1] == "healthy"
	var started atomic.Int64
	begin := time.Now()
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			fmt.Println("started", started.Load(), time.Since(begin).Seconds())
		}
	}()
	fmt.Println("ready")
	end := time.After(5 * time.Minute)
	each := time.NewTicker(time.Second / perSecond)
	for {
		select {
		case <-each.C:
			started.Add(1)
			serve(healthy)
		case <-end:
			return
		}
	}
}
