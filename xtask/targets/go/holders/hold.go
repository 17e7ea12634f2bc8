package main

import (
	"bufio"
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
)

// Where the compiler cannot know the size it takes the heap.
//
//go:noinline
func bytes(kib int) []byte { return make([]byte, kib<<10) }

// 32 KiB without pointers, and the way back to everything.
//
//go:noinline
func holdBuffer(i int, ready func()) {
	owner := theServer
	buffer := bytes(32)
	quotes := make(chan int)
	ready()
	quotes <- i
	runtime.KeepAlive(buffer)
	runtime.KeepAlive(owner)
}

type node struct {
	name     string
	children []*node
	labels   map[string]string
}

func newNode(depth, i int) *node {
	made := &node{name: fmt.Sprintf("node %d at %d", i, depth), labels: map[string]string{}}
	for k := 0; k < 4; k++ {
		made.labels[fmt.Sprint("label", k)] = strings.Repeat("v", 10+k)
	}
	if depth > 0 {
		for k := 0; k < 4; k++ {
			made.children = append(made.children, newNode(depth-1, i))
		}
	}
	return made
}

// Some hundred small objects.
//
//go:noinline
func holdTree(i int, ready func()) {
	tree := newNode(3, i)
	quotes := make(chan *node)
	ready()
	quotes <- tree
	runtime.KeepAlive(tree)
}

type request struct {
	method string
	header map[string][]string
	body   *bufio.Reader
	ctx    context.Context
	server *server
	form   map[string][]string
}

type contextKey string

// What an HTTP handler has at hand.
//
//go:noinline
func holdRequest(i int, ready func()) {
	r := &request{
		method: "POST",
		header: map[string][]string{},
		body:   bufio.NewReader(strings.NewReader(strings.Repeat("body ", 400))),
		ctx:    context.Background(),
		server: theServer,
		form:   map[string][]string{},
	}
	for k := 0; k < 12; k++ {
		name := fmt.Sprintf("X-Header-%d", k)
		r.header[name] = []string{fmt.Sprintf("value %d of %d", k, i)}
		r.form[name] = []string{strings.Repeat("f", 100)}
		r.ctx = context.WithValue(r.ctx, contextKey(name), &struct{ id, more int }{i, k})
	}
	r.body.Peek(100)
	done := make(chan struct{})
	ready()
	<-done
	runtime.KeepAlive(r)
}

var sessionsLock sync.Mutex

// 16 KiB that a global map has too.
//
//go:noinline
func holdRegistered(i int, ready func()) {
	buffer := bytes(16)
	sessionsLock.Lock()
	theServer.sessions[i] = buffer
	sessionsLock.Unlock()
	done := make(chan struct{})
	ready()
	<-done
	runtime.KeepAlive(buffer)
}

// 8 MiB that all members have, and 1 KiB of its own.
//
//go:noinline
func holdShared(big []byte, ready func()) {
	small := bytes(1)
	done := make(chan struct{})
	ready()
	<-done
	runtime.KeepAlive(big)
	runtime.KeepAlive(small)
}

// 12 KiB in a variable that a closure captures by reference.
//
//go:noinline
func holdClosure(i int, ready func()) {
	var array [12 << 10]byte
	touch := newJob(func() { array[i%len(array)]++ })
	done := make(chan struct{})
	ready()
	<-done
	touch.run()
}

type job struct{ run func() }

//go:noinline
func newJob(run func()) *job { return &job{run} }

func newPooled() *[20 << 10]byte { return new([20 << 10]byte) }

// 20 KiB from a pool that has others too.
//
//go:noinline
func holdPooled(i int, ready func()) {
	buffer, _ := theServer.pool.Get().(*[20 << 10]byte)
	if buffer == nil {
		buffer = newPooled()
	}
	theServer.pool.Put(newPooled())
	done := make(chan struct{})
	ready()
	<-done
	runtime.KeepAlive(buffer)
}

// 4 KiB, and places in the queues of three channels.
//
//go:noinline
func holdSelecting(i int, ready func()) {
	buffer := bytes(4)
	a, b, c := make(chan int), make(chan string), make(chan []byte, 2)
	ready()
	select {
	case a <- i:
	case <-b:
	case <-c:
	}
	runtime.KeepAlive(buffer)
}

// 10 KiB, in the queue of a channel that all members wait on.
//
//go:noinline
func holdQueued(queue chan int, ready func()) {
	buffer := bytes(10)
	ready()
	queue <- len(buffer)
	runtime.KeepAlive(buffer)
}

type account struct {
	lock    sync.Mutex
	history [5 << 10]byte
	notes   []string
}

// 5 KiB around the lock that it waits on.
//
//go:noinline
func holdLocked(i int, ready func()) {
	mine := &account{notes: []string{fmt.Sprint("note ", i)}}
	mine.lock.Lock()
	ready()
	mine.lock.Lock()
	runtime.KeepAlive(mine)
}

//go:noinline
func newSession() *session { return &session{} }

type session struct {
	lock sync.Mutex
	next *session
	data [6 << 10]byte
}

// 6 KiB in a list that leads from any member to all.
//
//go:noinline
func holdListed(list *session, ready func()) {
	mine := newSession()
	list.lock.Lock()
	mine.next = list.next
	list.next = mine
	list.lock.Unlock()
	done := make(chan struct{})
	ready()
	<-done
	runtime.KeepAlive(mine)
	runtime.KeepAlive(list)
}

// 24 KiB that a goroutine of another group has too.
//
//go:noinline
func holdLeft(pair *[24 << 10]byte, ready func()) {
	done := make(chan struct{})
	ready()
	<-done
	runtime.KeepAlive(pair)
}

//go:noinline
func holdRight(pair *[24 << 10]byte, ready func()) {
	done := make(chan struct{})
	ready()
	<-done
	runtime.KeepAlive(pair)
}
