package seccomp

// This file holds decisions as a graph of tests, before they become instructions. Equal nodes are the same node.

// A word is one of the 32-bit numbers that a program can load: its offset in struct seccomp_data, which is
// that of a processor with the lower half first.
type word uint8

const (
	wordNumber word = 0
	wordArch   word = 4
	wordArgs   word = 16
)

func lowWord(arg uint8) word  { return wordArgs + 8*word(arg) }
func highWord(arg uint8) word { return lowWord(arg) + 4 }

// A ref is a node, by its place in the graph; what a node leads to has a lower place.
type ref int32

// A node is either an end, with an action, or a test.
type node struct {
	end  bool
	word word
	jump uint16 // jumpEqual, jumpGreater, jumpAtLeast or jumpBits
	mask uint32 // that is put on the word before; not of jumpBits
	k    uint32 // what the word is compared with; the action of an end
	yes  ref
	no   ref
}

// full is the mask that keeps all.
const full = 0xffffffff

// graph is a set of nodes.
type graph struct {
	nodes []node
	known map[node]ref
	sized int // how many nodes there were when size has looked last
}

// size returns how many nodes can be reached from one, each of which is an instruction at least. It is 0 as long as
// the graph has not become much larger, since looking takes time.
func (g *graph) size(root ref) (n int) {
	if len(g.nodes) < g.sized+MaxInstructions {
		return 0
	}
	g.sized = len(g.nodes)
	reached := make([]bool, root+1)
	reached[root] = true
	for r := root; r >= 0; r-- {
		if !reached[r] {
			continue
		}
		n++
		if !g.nodes[r].end {
			reached[g.nodes[r].yes], reached[g.nodes[r].no] = true, true
		}
	}
	return n
}

func (g *graph) add(n node) ref {
	if r, ok := g.known[n]; ok {
		return r
	}
	r := ref(len(g.nodes))
	g.nodes, g.known[n] = append(g.nodes, n), r
	return r
}

func (g *graph) end(a Action) ref { return g.add(node{end: true, k: uint32(a)}) }

// test adds a test, unless its result is known or does not matter.
func (g *graph) test(n node) ref {
	switch {
	case n.yes == n.no,
		n.jump == jumpAtLeast && n.k == 0:
		return n.yes
	case n.jump == jumpGreater && n.k == full,
		n.jump == jumpBits && n.k == 0,
		n.jump == jumpEqual && n.k&^n.mask != 0:
		return n.no
	case n.jump == jumpEqual && n.mask == 0: // and k is 0
		return n.yes
	}
	return g.add(n)
}

func (g *graph) equal(w word, k uint32, yes, no ref) ref {
	return g.test(node{word: w, jump: jumpEqual, mask: full, k: k, yes: yes, no: no})
}

func (g *graph) atLeast(w word, k uint32, yes, no ref) ref {
	return g.test(node{word: w, jump: jumpAtLeast, mask: full, k: k, yes: yes, no: no})
}

func (g *graph) greater(w word, k uint32, yes, no ref) ref {
	return g.test(node{word: w, jump: jumpGreater, mask: full, k: k, yes: yes, no: no})
}

// masked tests word & mask == k. A test for bits leaves the loaded word as it is.
func (g *graph) masked(w word, mask, k uint32, yes, no ref) ref {
	switch {
	case mask == full || k&^mask != 0:
	case k == 0:
		return g.test(node{word: w, jump: jumpBits, mask: full, k: mask, yes: no, no: yes})
	case k == mask && mask&(mask-1) == 0:
		return g.test(node{word: w, jump: jumpBits, mask: full, k: mask, yes: yes, no: no})
	}
	return g.test(node{word: w, jump: jumpEqual, mask: mask, k: k, yes: yes, no: no})
}
