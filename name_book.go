package container

import (
	"container/heap"
	"net/netip"
	"sync"
	"time"
)

// This file remembers which addresses have been given out for which names, for as long as these are valid: rules by name hold for them. It runs
// in the caller's process, one book for each container.

const (
	// What a name server says about how long an answer is valid is taken within these bounds: a program needs some time from the answer to its
	// connection, and one that never asks again is not to be trusted for longer than it is to be followed.
	minNameTime, maxNameTime = time.Minute, time.Hour

	// A book is as long as this. Beyond, what ends first is forgotten: the program can ask again.
	maxBookEntries = 16384
	// maxBookNames is the number of names of one address. Many hosts with one address are those of a large provider.
	maxBookNames = 256
)

// A nameBook is safe for concurrent use. The zero value is an empty book.
type nameBook struct {
	mu     sync.Mutex
	byAddr map[netip.Addr][]*bookEntry // the last given out at the end
	ends   bookHeap
	now    func() time.Time // nil: time.Now
}

// A bookEntry is one name of one address.
type bookEntry struct {
	addr  netip.Addr
	name  string
	until time.Time
	at    int // in ends
}

// note remembers that an address was given out for a name. How long is what the name server said.
func (b *nameBook) note(name string, addr netip.Addr, valid time.Duration) {
	addr = addr.Unmap()
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.time()
	until := now.Add(min(max(valid, minNameTime), maxNameTime))
	b.expire(now)
	entries := b.byAddr[addr]
	for i, e := range entries {
		if e.name != name {
			continue
		}
		// What has been valid stays so, and the name is the last given out.
		if until.After(e.until) {
			e.until = until
			heap.Fix(&b.ends, e.at)
		}
		copy(entries[i:], entries[i+1:])
		entries[len(entries)-1] = e
		return
	}
	if len(entries) >= maxBookNames {
		b.forget(entries[0])
	}
	for len(b.ends) >= maxBookEntries {
		b.forget(b.ends[0])
	}
	e := &bookEntry{addr: addr, name: name, until: until}
	if b.byAddr == nil {
		b.byAddr = map[netip.Addr][]*bookEntry{}
	}
	b.byAddr[addr] = append(b.byAddr[addr], e)
	heap.Push(&b.ends, e)
}

// names returns the names of an address that are valid, the last given out first.
func (b *nameBook) names(addr netip.Addr) []string {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expire(b.time())
	entries := b.byAddr[addr.Unmap()]
	if len(entries) == 0 {
		return nil
	}
	names := make([]string, 0, len(entries))
	for i := len(entries) - 1; i >= 0; i-- {
		names = append(names, entries[i].name)
	}
	return names
}

// expire forgets what is not valid any more.
func (b *nameBook) expire(now time.Time) {
	for len(b.ends) > 0 && !b.ends[0].until.After(now) {
		b.forget(b.ends[0])
	}
}

// forget removes an entry.
func (b *nameBook) forget(e *bookEntry) {
	heap.Remove(&b.ends, e.at)
	entries := b.byAddr[e.addr]
	for i := range entries {
		if entries[i] == e {
			entries = append(entries[:i], entries[i+1:]...)
			break
		}
	}
	if len(entries) == 0 {
		delete(b.byAddr, e.addr)
		return
	}
	b.byAddr[e.addr] = entries
}

func (b *nameBook) time() time.Time {
	if b.now != nil {
		return b.now()
	}
	return time.Now()
}

// A bookHeap has the entry that ends first on top; see container/heap.
type bookHeap []*bookEntry

func (h bookHeap) Len() int           { return len(h) }
func (h bookHeap) Less(i, j int) bool { return h[i].until.Before(h[j].until) }

func (h bookHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push adds an element, for container/heap.
func (h *bookHeap) Push(x any) {
	e := x.(*bookEntry)
	e.at = len(*h)
	*h = append(*h, e)
}

// Pop removes the last element, for container/heap.
func (h *bookHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
