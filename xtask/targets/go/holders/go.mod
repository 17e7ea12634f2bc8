module holders

go 1.21
