//go:build !cgo

package main

func callsC() { block() }
