// Command checkout is the service of observer's demo, and the load for it.
//
//	checkout serve [--fixed] [--listen 127.0.0.1:0] [--for 15m]
//	checkout load --target 127.0.0.1:PORT [--rate 60] [--idle 40] [--for 2m]
//
// Both end by themselves, and with --tied also when their standard input is closed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"checkout/load"
)

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch os.Args[1] {
	case "serve":
		err = runServe(ctx, os.Args[2:])
	case "load":
		err = runLoad(ctx, os.Args[2:])
	default:
		usage()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: checkout serve|load [options]")
	os.Exit(2)
}

func runServe(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	fixed := flags.Bool("fixed", false, "run the twin without the leak")
	listen := flags.String("listen", "127.0.0.1:0", "loopback address to listen on")
	life := flags.Duration("for", 15*time.Minute, "end after this time")
	tied := flags.Bool("tied", false, "end when standard input is closed")
	flags.Parse(arguments)
	ctx, cancel := bounded(ctx, *life, *tied)
	defer cancel()
	return serve(ctx, *listen, *fixed)
}

func runLoad(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	var options load.Options
	flags.StringVar(&options.Target, "target", "", "host:port of the service, loopback only")
	flags.IntVar(&options.Rate, "rate", 60, "carts a second")
	flags.IntVar(&options.Idle, "idle", 40, "connections that stay open and idle")
	life := flags.Duration("for", 2*time.Minute, "end after this time")
	tied := flags.Bool("tied", false, "end when standard input is closed")
	flags.Parse(arguments)
	ctx, cancel := bounded(ctx, *life, *tied)
	defer cancel()
	priced, failed, err := load.Run(ctx, options)
	if err == nil {
		fmt.Printf("load: %d carts priced, %d given up\n", priced, failed)
	}
	return err
}

func bounded(ctx context.Context, life time.Duration, tied bool) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, min(life, time.Hour))
	if tied {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	return ctx, cancel
}
