module leaker

go 1.21
