// Package cache keeps a bounded number of article pages: memory that grows at first, and then stops.
package cache

import "sync"

// A Cache holds at most a fixed number of pages.
type Cache struct {
	mutex sync.Mutex
	limit int
	pages map[int][]byte
}

// New makes an empty cache of at most limit pages.
func New(limit int) *Cache {
	return &Cache{limit: limit, pages: make(map[int][]byte, limit)}
}

// Page returns the page of an article, made on its first use while there is room.
func (c *Cache) Page(article int) []byte {
	key := article % c.limit
	c.mutex.Lock()
	defer c.mutex.Unlock()
	page, found := c.pages[key]
	if !found {
		page = make([]byte, 2048)
		for i := range page {
			page[i] = byte(key + i)
		}
		c.pages[key] = page
	}
	return page
}

// Len is how many pages it holds.
func (c *Cache) Len() int {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return len(c.pages)
}
