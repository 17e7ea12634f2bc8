module cgo_leaker

go 1.21
