module cgo_sleep

go 1.21
