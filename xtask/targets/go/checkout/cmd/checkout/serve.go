package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof" // to compare observer's view with the service's own
	"os"
	"runtime"
	"time"

	"checkout"
	"checkout/cache"
	"checkout/jobs"
)

const (
	workers       = 300
	jobsPerSecond = 512
	cachePages    = 1024
	patience      = 150 * time.Millisecond
)

// serve runs the service until ctx ends. Its first line of output says where it is.
func serve(ctx context.Context, address string, fixed bool) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	if ip := listener.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
		listener.Close()
		return fmt.Errorf("checkout: %s is not a loopback address", address)
	}

	quoter := checkout.NewQuoter(patience, fixed)
	pages := cache.New(cachePages)
	pool := jobs.NewPool(workers)
	article := 0
	next := make(chan int, 1)
	next <- article
	go pool.Feed(jobsPerSecond, func() {
		number := <-next
		next <- number + 1
		pages.Page(number)
	})
	for _, every := range []time.Duration{time.Second, 5 * time.Second, time.Minute} {
		go housekeeping(ctx, every)
	}

	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	http.HandleFunc("/quote", func(w http.ResponseWriter, r *http.Request) { price(w, r, quoter) })
	http.HandleFunc("/truth", func(w http.ResponseWriter, _ *http.Request) { truth(w, quoter, pool, pages) })
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })

	fmt.Printf("checkout: pid %d, listening on %s\n", os.Getpid(), listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func price(w http.ResponseWriter, r *http.Request, quoter *checkout.Quoter) {
	request, err := checkout.ReadRequest(r.Body, r.ContentLength)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	cents, err := quoter.Get(r.Context(), request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusGatewayTimeout)
		return
	}
	fmt.Fprintf(w, "{\"cents\":%d}\n", cents)
}

// truth is what the service knows about itself, for tests to compare with.
func truth(w http.ResponseWriter, quoter *checkout.Quoter, pool *jobs.Pool, pages *cache.Cache) {
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	json.NewEncoder(w).Encode(map[string]any{
		"fetching":     quoter.Fetching(),
		"goroutines":   runtime.NumGoroutine(),
		"jobs_done":    pool.Done(),
		"cached_pages": pages.Len(),
		"heap_alloc":   memory.HeapAlloc,
		"heap_inuse":   memory.HeapInuse,
		"stack_inuse":  memory.StackInuse,
	})
}

func housekeeping(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
