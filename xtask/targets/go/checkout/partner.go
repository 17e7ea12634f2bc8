package checkout

import "time"

// A partner is a remote shop; here only its latency is real.
type partner struct {
	latency time.Duration
}

// partners are fifteen, of which four answer later than any client waits.
func partners() []partner {
	all := make([]partner, 15)
	for i := range all {
		all[i].latency = time.Duration(5+4*i) * time.Millisecond
		if i%4 == 2 { // 2, 6, 10, 14
			all[i].latency += 400 * time.Millisecond
		}
	}
	return all
}

func (p partner) ask(request *Request) int64 {
	time.Sleep(p.latency)
	var cents int64
	for _, line := range request.Lines {
		cents += line.Cents * int64(line.Count)
	}
	return cents
}
