// Command holders blocks groups of goroutines that keep known amounts of memory, each in its own way, and prints
// for each group how much the heap grew by it.
package main

import (
	"flag"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// members of each group.
var members = flag.Int("members", 400, "goroutines in each group")

// cacheMB of a global cache that no goroutine is to be charged for.
var cacheMB = flag.Int("cache", 50, "megabytes of a global cache")

// server is what handlers usually point back to: everything is reachable from it.
type server struct {
	cache    map[int]*entry
	sessions map[int][]byte
	pool     sync.Pool
}

type entry struct {
	key   string
	value []byte
	next  *entry
}

var theServer = &server{cache: map[int]*entry{}, sessions: map[int][]byte{}}

func heap() (bytes uint64, objects uint64) {
	// Twice: what a pool gives up in the first is collected in the second.
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc, stats.HeapObjects
}

// block starts the members of a group, waits until they block, and prints by how much each made the heap grow.
func block(name string, hold func(i int, ready func())) {
	before, objects := heap()
	var ready sync.WaitGroup
	ready.Add(*members)
	for i := 0; i < *members; i++ {
		start(hold, i, &ready)
	}
	ready.Wait()
	time.Sleep(100 * time.Millisecond)
	after, objectsAfter := heap()
	fmt.Printf("group %s %d %d\n", name, (int64(after)-int64(before))/int64(*members),
		(int64(objectsAfter)-int64(objects))/int64(*members))
}

func start(hold func(i int, ready func()), i int, ready *sync.WaitGroup) {
	go hold(i, ready.Done)
}

func main() {
	flag.Parse()
	var last *entry
	for i := 0; i < *cacheMB*64; i++ {
		last = &entry{key: fmt.Sprint("key", i), value: make([]byte, 16<<10-64), next: last}
		theServer.cache[i] = last
	}
	for i := 0; i < 100; i++ {
		theServer.pool.Put(newPooled())
	}
	block("buffer", holdBuffer)
	block("tree", holdTree)
	block("request", holdRequest)
	block("registered", holdRegistered)
	big := make([]byte, 8<<20)
	block("shared", func(i int, ready func()) { holdShared(big, ready) })
	big = nil
	block("closure", holdClosure)
	block("pooled", holdPooled)
	block("selecting", holdSelecting)
	queue := make(chan int)
	block("queued", func(i int, ready func()) { holdQueued(queue, ready) })
	block("locked", holdLocked)
	list := &session{}
	block("listed", func(i int, ready func()) { holdListed(list, ready) })
	list = nil
	pairs := make([]*[24 << 10]byte, *members)
	for i := range pairs {
		pairs[i] = new([24 << 10]byte)
	}
	// Each half is handed over by a channel, so that no closure keeps the slice.
	lefts, rights := make(chan *[24 << 10]byte, *members), make(chan *[24 << 10]byte, *members)
	for _, pair := range pairs {
		lefts <- pair
		rights <- pair
	}
	pairs = nil
	block("left", func(i int, ready func()) { holdLeft(<-lefts, ready) })
	block("right", func(i int, ready func()) { holdRight(<-rights, ready) })

	for i := 0; i < 3; i++ {
		runtime.GC()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	fmt.Printf("ready %d %d %d\n", stats.HeapInuse, stats.HeapAlloc, stats.StackInuse)
	for {
		time.Sleep(time.Hour)
	}
}
