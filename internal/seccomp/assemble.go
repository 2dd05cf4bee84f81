package seccomp

import "slices"

// This file turns a graph into instructions. It writes them from the last to the first: what a node leads to is written
// before it, so each jump knows how far it goes.

// farthest is how many instructions a conditional jump can skip.
const farthest = 255

// A place is where to go on at a node: a test begins with a load, unless the accumulator has its word.
type place struct {
	ref    ref
	loaded bool
}

func (p place) index() int {
	if p.loaded {
		return 2*int(p.ref) + 1
	}
	return 2 * int(p.ref)
}

// assembler writes a program backwards: positions are counted from its end.
type assembler struct {
	nodes  []node
	code   []Instruction
	wanted []bool // places that can be reached
	at     []int  // where each place is
	near   []int  // the last copy of it, or jump to it
}

func assemble(nodes []node, root ref) []Instruction {
	places := 2 * len(nodes)
	a := &assembler{nodes: nodes, wanted: make([]bool, places), at: make([]int, places), near: make([]int, places)}
	a.want(root)
	for r := range root + 1 {
		a.write(r)
	}
	slices.Reverse(a.code)
	return a.code
}

// want finds the places that can be reached.
func (a *assembler) want(root ref) {
	a.wanted[place{root, false}.index()] = true
	for r := root; r >= 0; r-- {
		if n := &a.nodes[r]; !n.end && a.reachable(r) {
			a.wanted[a.after(n, n.yes).index()] = true
			a.wanted[a.after(n, n.no).index()] = true
		}
	}
}

func (a *assembler) reachable(r ref) bool {
	return a.wanted[place{r, false}.index()] || a.wanted[place{r, true}.index()]
}

// after returns the place of a node that follows a test. The test leaves its word in the accumulator, unless it has masked it.
func (a *assembler) after(n *node, to ref) place {
	next := &a.nodes[to]
	return place{to, !next.end && n.mask == full && next.word == n.word}
}

// write writes a node in both ways to come to it: the load is before the test.
func (a *assembler) write(r ref) {
	n, cold, warm := &a.nodes[r], place{r, false}, place{r, true}
	if !a.reachable(r) {
		return
	}
	if n.end {
		a.put(cold, Instruction{Code: returnValue, K: n.k})
		return
	}
	a.branch(n)
	if n.mask != full {
		a.code = append(a.code, Instruction{Code: andValue, K: n.mask})
	}
	a.here(warm)
	if a.wanted[cold.index()] {
		a.put(cold, Instruction{Code: loadWord, K: uint32(n.word)})
	}
}

func (a *assembler) put(p place, i Instruction) {
	a.code = append(a.code, i)
	a.here(p)
}

// here notes that the place is the instruction that has been written last.
func (a *assembler) here(p place) {
	a.at[p.index()] = len(a.code) - 1
	a.near[p.index()] = len(a.code) - 1
}

// branch writes the jump of a test, and before that a bridge to what is too far away for it. Nothing runs into a bridge, since
// a test jumps in both cases.
func (a *assembler) branch(n *node) {
	yes, no := a.after(n, n.yes), a.after(n, n.no)
	for a.skip(yes) > farthest || a.skip(no) > farthest {
		if a.skip(yes) > farthest {
			a.bridge(yes)
		} else {
			a.bridge(no)
		}
	}
	a.code = append(a.code, Instruction{Code: n.jump, Jt: uint8(a.skip(yes)), Jf: uint8(a.skip(no)), K: n.k})
}

// skip returns how many instructions are between the one to be written next and a place.
func (a *assembler) skip(p place) int { return len(a.code) - 1 - a.near[p.index()] }

// bridge writes a jump to a place, or the place itself if it is an end.
func (a *assembler) bridge(p place) {
	if n := &a.nodes[p.ref]; n.end {
		a.code = append(a.code, Instruction{Code: returnValue, K: n.k})
	} else {
		a.code = append(a.code, Instruction{Code: jumpAlways, K: uint32(len(a.code) - 1 - a.at[p.index()])})
	}
	a.near[p.index()] = len(a.code) - 1
}
