// Command shapes blocks goroutines in every way that a Go program can, some of each, and writes its own
// dump of them once all are at rest: the truth that a reader from outside is compared with.
//
//	shapes DUMP [COUNT [CHURNERS]]
//
// It prints `ready` when the dump is written and then stands still until it is killed, but for the
// churners: goroutines that start and await others without end.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	count   = 40
	sinks   []any
	forever = make(chan int)
)

// many starts count goroutines of one shape.
func many(shape func()) {
	for i := 0; i < count; i++ {
		go shape()
	}
}

func main() {
	if len(os.Args) > 2 {
		count, _ = strconv.Atoi(os.Args[2])
	}
	channels()
	locks()
	waits()
	calls()
	panics()
	special()

	buffer := atRest()
	if err := os.WriteFile(os.Args[1]+".part", buffer, 0o644); err != nil {
		panic(err)
	}
	if err := os.Rename(os.Args[1]+".part", os.Args[1]); err != nil {
		panic(err)
	}
	if len(os.Args) > 3 {
		churners, _ := strconv.Atoi(os.Args[3])
		for i := 0; i < churners; i++ {
			go churn()
		}
	}
	fmt.Println("ready", runtime.NumGoroutine())
	select {}
}

func churn() {
	for {
		var group sync.WaitGroup
		for i := 0; i < 20; i++ {
			group.Add(1)
			go func() {
				defer group.Done()
				recurse2(i)
			}()
		}
		group.Wait()
	}
}

//go:noinline
func recurse2(depth int) {
	if depth > 0 {
		recurse2(depth - 1)
		return
	}
	time.Sleep(time.Microsecond)
}

// atRest dumps until two dumps are the same.
func atRest() []byte {
	buffer := make([]byte, 64<<20)
	last := ""
	for {
		time.Sleep(200 * time.Millisecond)
		dump := buffer[:runtime.Stack(buffer, true)]
		// The first is this one.
		_, others, _ := strings.Cut(string(dump), "\n\n")
		if others == last && !strings.Contains(others, "[runnable") && !strings.Contains(others, "[running") {
			return dump
		}
		last = others
	}
}

// --- channels

type quote struct{ price [4]int }

func channels() {
	many(nilSend)
	many(nilReceive)
	many(func() { ch := make(chan *quote); ch <- &quote{} })
	many(func() { ch := make(chan map[string]quote, 2); ch <- nil; ch <- nil; ch <- nil })
	many(func() { <-make(chan struct{}) })
	many(func() {
		for range make(chan int) {
		}
	})
	many(selectTwo)
	many(selectOne)
	many(selectWithNil)
	many(func() { select {} })
	shared := make(chan error)
	many(func() { shared <- errors.New("nobody reads this") })
	many(func() {
		value, ok := <-forever
		sinks = append(sinks, value, ok)
	})
}

func nilSend()    { var ch chan int; ch <- 1 }
func nilReceive() { var ch chan string; <-ch }

func selectOne() {
	select {
	case <-forever:
	}
}

func selectTwo() {
	a, b := make(chan int), make(chan string, 1)
	b <- "full"
	select {
	case v := <-a:
		sinks = append(sinks, v)
	case b <- "more":
	}
}

func selectWithNil() {
	var none chan int
	some := make(chan int)
	select {
	case <-none:
	case some <- 3:
	case <-time.After(time.Hour):
	}
}

// --- locks

func locks() {
	var mutex sync.Mutex
	mutex.Lock()
	many(func() { mutex.Lock(); defer mutex.Unlock() })

	var written sync.RWMutex
	written.Lock()
	many(func() { written.RLock() })

	var read sync.RWMutex
	read.RLock()
	many(func() { read.Lock() })

	cond := sync.NewCond(&sync.Mutex{})
	many(func() {
		cond.L.Lock()
		for len(os.Args) > 0 {
			cond.Wait()
		}
	})

	var group sync.WaitGroup
	group.Add(1)
	many(group.Wait)

	var once sync.Once
	go once.Do(func() { <-forever })
	time.Sleep(10 * time.Millisecond)
	many(func() { once.Do(func() {}) })

	embedded := &guarded{}
	embedded.Lock()
	many(embedded.bump)
}

type guarded struct {
	sync.Mutex
	n int
}

func (g *guarded) bump() {
	g.Lock()
	g.n++
	g.Unlock()
}

// --- waits

func waits() {
	many(func() { time.Sleep(time.Hour) })
	many(func() { <-time.After(time.Hour) })
	many(func() { timer := time.NewTimer(time.Hour); <-timer.C })
	many(func() { ticker := time.NewTicker(time.Hour); defer ticker.Stop(); <-ticker.C })

	many(func() {
		r, w, err := os.Pipe()
		check(err)
		sinks = append(sinks, w)
		buffer := make([]byte, 10)
		_, _ = r.Read(buffer)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	many(func() {
		conn, err := listener.Accept()
		sinks = append(sinks, conn, err)
	})
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go func() {
		for {
			conn, err := silent.Accept()
			check(err)
			keep(conn)
		}
	}()
	many(func() {
		conn, err := net.Dial("tcp", silent.Addr().String())
		check(err)
		_, _ = conn.Read(make([]byte, 100))
	})
	// A system call that the scheduler knows of, each on a thread of its own; not too many of them.
	for i := 0; i < min(count, 20); i++ {
		go blockedInSyscall()
		go blockedInRawSyscall()
	}
	for i := 0; i < min(count, 10); i++ {
		go callsC()
	}
}

var keptLock sync.Mutex

func keep(value any) {
	keptLock.Lock()
	defer keptLock.Unlock()
	sinks = append(sinks, value)
}

func blockedInSyscall() {
	var ends [2]int
	check(syscall.Pipe(ends[:]))
	var buffer [1]byte
	_, _ = syscall.Read(ends[0], buffer[:])
}

func blockedInRawSyscall() {
	var ends [2]int
	check(syscall.Pipe(ends[:]))
	spec := syscall.Timespec{Sec: 3600}
	_ = syscall.Nanosleep(&spec, nil)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

// --- calls

func calls() {
	many(func() { recurse(30) })
	many(func() { recurse(300) })
	many(func() { bigFrames(60) })
	many(func() { even(40) })
	many(func() {
		func() {
			func() {
				defer func() { sinks = append(sinks, 1) }()
				block()
			}()
		}()
	})
	many(func() { generic[int](3); generic("a") })
	many(func() { generic(map[string][]int{}) })
	many((&tree[string, int]{}).visit)
	var visitor interface{ visit() } = &tree[int, quote]{}
	many(visitor.visit)

	worker := &worker{}
	many(worker.run)
	many((*worker).run2)
	many(func() { defer block(); sinks = append(sinks[:0:0], 2) })
	many(func() { defer worker.deferred("a", 1); defer func() {}() })
	many(inlinedOuter)
	many(func() { var w waiter = wrapped{inner: inner{}}; w.wait() })
	many(func() { var w waiter = &wrapped{}; w.wait() })
	many(func() { reflect.ValueOf(block).Call(nil) })
	many(func() { reflect.ValueOf(worker).MethodByName("Reflected").Call(nil) })
	many(func() {
		values := []int{3, 1, 2}
		sort.Slice(values, func(i, j int) bool { block(); return i < j })
	})
	many(anExtremelyLongFunctionNameThatGoesOnAndOnBecauseSomebodyThoughtThatNamesShouldSayEverythingThatAFunctionDoesAndSomeMoreOfWhatItDoesNot)
	many(func() { many1(block) })
	for i := 0; i < count; i++ {
		go withArguments(i, "text", worker, []int{i}, map[string]int{})
		go worker.run()
		go generic(quote{})
	}
	many(func() { strings.Map(func(r rune) rune { block(); return r }, "abc") })
	many(func() { strings.FieldsFunc("a b", func(r rune) bool { inlinedMiddle(); return false }) })
}

//go:noinline
func block() { <-forever }

//go:noinline
func recurse(depth int) {
	if depth == 0 {
		block()
	}
	recurse(depth - 1)
}

//go:noinline
func bigFrames(depth int) byte {
	var frame [1000]byte
	if depth == 0 {
		block()
	}
	frame[depth] = bigFrames(depth-1) + 1
	return frame[depth/2]
}

//go:noinline
func even(n int) bool {
	if n == 0 {
		block()
		return true
	}
	return odd(n - 1)
}

//go:noinline
func odd(n int) bool { return !even(n - 1) }

func generic[T any](value T) {
	ch := make(chan T)
	ch <- value
}

type tree[K comparable, V any] struct {
	left, right *tree[K, V]
	values      map[K]V
}

//go:noinline
func (t *tree[K, V]) visit() { t.each(func(K, V) { block() }) }

//go:noinline
func (t *tree[K, V]) each(f func(K, V)) {
	var key K
	var value V
	f(key, value)
}

type worker struct{ jobs chan func() }

func (w *worker) run() { <-w.jobs }
func (w worker) run2() { block() }
func (w *worker) Reflected() {
	block()
}

func (w *worker) deferred(name string, n int) {
	sinks = append([]any{}, name, n)
	w.run()
}

func inlinedOuter()  { inlinedMiddle() }
func inlinedMiddle() { inlinedInner(forever) }
func inlinedInner(ch chan int) {
	ch2 := ch
	<-ch2
}

type waiter interface{ wait() }
type inner struct{}

//go:noinline
func (inner) wait() { block() }

type wrapped struct{ inner }

func many1(f func()) { f() }

//go:noinline
func withArguments(n int, text string, w *worker, list []int, m map[string]int) {
	block()
	fmt.Println(n, text, w, list, m)
}

func anExtremelyLongFunctionNameThatGoesOnAndOnBecauseSomebodyThoughtThatNamesShouldSayEverythingThatAFunctionDoesAndSomeMoreOfWhatItDoesNot() {
	block()
}

// --- panics

func panics() {
	many(func() {
		defer func() { _ = recover(); block() }()
		panic("while it unwinds")
	})
	many(func() {
		defer func() { block() }()
		var none *worker
		none.run()
	})
	many(func() {
		defer func() { _ = recover(); block() }()
		var list []int
		sinks[0] = list[count]
	})
	many(func() {
		defer block()
		var values map[string]int
		values["a"] = 1
	})
	many(func() { defer block(); runtime.Goexit() })
}

// --- special

type finalized struct{ name string }

func special() {
	many(func() { runtime.LockOSThread(); block() })
	for i := 0; i < count; i++ {
		time.AfterFunc(time.Millisecond, block)
	}
	many(func() { time.Sleep(time.Hour); runtime.Gosched() })
	many(func() { go nested(); block() })
	runtime.SetFinalizer(&finalized{"one"}, func(f *finalized) { block() })
	runtime.GC()
	runtime.GC()
}

func nested() {
	go func() { inlinedOuter() }()
	block()
}
