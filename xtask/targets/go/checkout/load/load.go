// Package load is the clients: a steady rate of carts, and some connections that only stay open.
package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"checkout"
)

// Options bound the load.
type Options struct {
	Target   string        // host:port, loopback only
	Rate     int           // carts a second
	Idle     int           // connections that send one request and then nothing
	Duration time.Duration // 0: until ctx ends
}

const (
	maxRate     = 2000
	maxIdle     = 1000
	maxInFlight = 512
)

// Run sends the load, and returns how many carts were priced and how many were given up.
func Run(ctx context.Context, options Options) (priced, failed int, err error) {
	if err := check(options); err != nil {
		return 0, 0, err
	}
	if options.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, options.Duration)
		defer cancel()
	}
	if err := holdIdle(ctx, options); err != nil {
		return 0, 0, err
	}
	client := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxConnsPerHost: maxInFlight},
	}
	var (
		group sync.WaitGroup
		mutex sync.Mutex
		slots = make(chan struct{}, maxInFlight)
	)
	ticker := time.NewTicker(time.Second / time.Duration(options.Rate))
	defer ticker.Stop()
	defer group.Wait()
	for number := 0; ; number++ {
		select {
		case <-ctx.Done():
			group.Wait()
			return priced, failed, nil
		case <-ticker.C:
		}
		select {
		case slots <- struct{}{}:
		default:
			continue // the service does not keep up: send less, not more
		}
		body, err := json.Marshal(cart(number))
		if err != nil {
			return priced, failed, err
		}
		group.Add(1)
		go func() {
			defer group.Done()
			defer func() { <-slots }()
			ok := send(ctx, client, options.Target, body)
			mutex.Lock()
			defer mutex.Unlock()
			if ok {
				priced++
			} else {
				failed++
			}
		}()
	}
}

func check(options Options) error {
	host, _, err := net.SplitHostPort(options.Target)
	if err != nil {
		return fmt.Errorf("load: target %q: %w", options.Target, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("load: target %q is not a loopback address", options.Target)
	}
	if options.Rate < 1 || options.Rate > maxRate || options.Idle < 0 || options.Idle > maxIdle {
		return fmt.Errorf("load: rate 1 to %d, idle 0 to %d", maxRate, maxIdle)
	}
	return nil
}

func send(ctx context.Context, client *http.Client, target string, body []byte) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+target+"/quote", bytes.NewReader(body))
	if err != nil {
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20))
	return response.StatusCode == http.StatusOK
}

// holdIdle opens the connections, makes each of them idle, and closes them when ctx ends.
func holdIdle(ctx context.Context, options Options) error {
	connections := make([]net.Conn, 0, options.Idle)
	closeAll := func() {
		for _, connection := range connections {
			connection.Close()
		}
	}
	for i := 0; i < options.Idle; i++ {
		connection, err := net.DialTimeout("tcp", options.Target, 5*time.Second)
		if err != nil {
			closeAll()
			return err
		}
		connections = append(connections, connection)
		fmt.Fprintf(connection, "GET /healthz HTTP/1.1\r\nHost: checkout\r\n\r\n")
		connection.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := connection.Read(make([]byte, 1024)); err != nil {
			closeAll()
			return err
		}
	}
	context.AfterFunc(ctx, closeAll)
	return nil
}

// cart is the number-th cart: they differ in content and hardly in size.
func cart(number int) *checkout.Request {
	request := &checkout.Request{Partner: number, Client: fmt.Sprintf("client-%08d", number)}
	for i := 0; i < 64; i++ {
		request.Lines = append(request.Lines, checkout.Line{
			Article: fmt.Sprintf("article-%08d-%04d", number, i),
			Count:   1 + i%5,
			Cents:   int64(199 + 100*(i%40)),
			Attributes: map[string]string{
				"colour": []string{"red", "green", "blue"}[i%3],
				"size":   fmt.Sprintf("%d", 36+i%12),
			},
		})
	}
	return request
}
