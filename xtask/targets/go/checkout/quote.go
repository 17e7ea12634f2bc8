// Package checkout prices a cart by asking a partner, as a shop does before it takes the money.
//
// It leaks on purpose: this is the service that observer's demo finds the fault in.
package checkout

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// ErrTooSlow is what a client gets whose partner did not answer in time.
var ErrTooSlow = errors.New("checkout: partner too slow")

type quote struct {
	request *Request
	cents   int64
}

// Quoter asks partners for prices, and waits for each no longer than its patience.
type Quoter struct {
	partners []partner
	patience time.Duration
	room     int // capacity of the channel that carries a quote: 0 leaks, 1 does not
	fetching atomic.Int64
}

// NewQuoter makes the leaking Quoter or, fixed, the one that lets late quotes go.
func NewQuoter(patience time.Duration, fixed bool) *Quoter {
	q := &Quoter{partners: partners(), patience: patience}
	if fixed {
		q.room = 1
	}
	return q
}

// Get returns what the partner wants for the cart, or ErrTooSlow.
func (q *Quoter) Get(ctx context.Context, request *Request) (int64, error) {
	answer := make(chan *quote, q.room)
	go q.fetch(request, answer)

	ctx, cancel := context.WithTimeout(ctx, q.patience)
	defer cancel()
	select {
	case got := <-answer:
		return got.cents, nil
	case <-ctx.Done():
		return 0, ErrTooSlow
	}
}

func (q *Quoter) fetch(request *Request, answer chan<- *quote) {
	q.fetching.Add(1)
	defer q.fetching.Add(-1)
	cents := q.partners[request.Partner%len(q.partners)].ask(request)
	answer <- &quote{request: request, cents: cents} // the reader may have gone home
}

// Fetching is how many fetches have not ended: the truth that observer's tests compare with.
func (q *Quoter) Fetching() int64 { return q.fetching.Load() }
