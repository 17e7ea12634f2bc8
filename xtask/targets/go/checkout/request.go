package checkout

import (
	"encoding/json"
	"fmt"
	"io"
)

// A Line is one article in a cart.
type Line struct {
	Article    string            `json:"article"`
	Count      int               `json:"count"`
	Cents      int64             `json:"cents"`
	Attributes map[string]string `json:"attributes"`
}

// A Request is a cart as the client sent it, with the bytes it came in (the audit log wants them).
type Request struct {
	Partner int    `json:"partner"`
	Client  string `json:"client"`
	Lines   []Line `json:"lines"`

	raw []byte
}

const maxBody = 256 << 10

// ReadRequest reads one cart of the announced length.
func ReadRequest(body io.Reader, length int64) (*Request, error) {
	if length <= 0 || length > maxBody {
		return nil, fmt.Errorf("checkout: a cart of %d bytes", length)
	}
	raw := make([]byte, length)
	if _, err := io.ReadFull(body, raw); err != nil {
		return nil, fmt.Errorf("checkout: reading the cart: %w", err)
	}
	request := &Request{raw: raw}
	if err := json.Unmarshal(raw, request); err != nil {
		return nil, fmt.Errorf("checkout: reading the cart: %w", err)
	}
	if request.Partner < 0 || len(request.Lines) == 0 {
		return nil, fmt.Errorf("checkout: an empty cart")
	}
	return request, nil
}
