// Package jobs is a worker pool: many goroutines that wait most of the time, and none of them leaks.
package jobs

import (
	"sync/atomic"
	"time"
)

// A Pool runs jobs on a fixed number of workers.
type Pool struct {
	jobs chan func()
	quit chan struct{}
	done atomic.Int64
}

// NewPool starts its workers at once.
func NewPool(workers int) *Pool {
	p := &Pool{jobs: make(chan func(), workers), quit: make(chan struct{})}
	for i := 0; i < workers; i++ {
		go p.worker()
	}
	return p
}

func (p *Pool) worker() {
	for {
		select {
		case job := <-p.jobs:
			job()
			p.done.Add(1)
		case <-p.quit:
			return
		}
	}
}

// Feed gives the pool perSecond jobs until it is closed.
func (p *Pool) Feed(perSecond int, job func()) {
	const steps = 32
	ticker := time.NewTicker(time.Second / steps)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for i := 0; i < perSecond/steps; i++ {
				select {
				case p.jobs <- job:
				default: // all busy: drop it
				}
			}
		case <-p.quit:
			return
		}
	}
}

// Done is how many jobs have run.
func (p *Pool) Done() int64 { return p.done.Load() }
