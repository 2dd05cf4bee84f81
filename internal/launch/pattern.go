//go:build linux

package launch

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// This file tells which calls a part of a program makes, for a filter of system calls that lets them through and is
// itself among the program's data.

// A CallPattern is a call as far as it is known beforehand.
type CallPattern struct {
	Nr    uint32
	Known uint8    // bit n is for argument n: it is a number or an address
	Args  [6]int64 // 0 where it is not known
}

// Patterns returns the calls from index from on, up to but not including to, and those by which a failure is reported, each once.
func (p *Program) Patterns(from, to int) []CallPattern {
	var list []CallPattern
	for _, o := range slices.Concat(p.ops[from:to], p.ops[:opFirst]) {
		if o.nr >= opCrash {
			continue
		}
		c := CallPattern{Nr: o.nr, Known: ^uint8(o.indirect) & 0x3f, Args: o.args}
		for i := range c.Args {
			if c.Known&(1<<i) == 0 {
				c.Args[i] = 0
			}
		}
		if !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	return list
}

// Fill writes words over the buffer at addr, which Zero has returned and which has room for them.
func (p *Program) Fill(addr Arg, words ...Arg) {
	for i, w := range words {
		if w.isResult() {
			panic("launch: a result is not data")
		}
		binary.LittleEndian.PutUint64(p.data[int(addr-dataBase)+8*i:], uint64(w))
	}
}

// filterLength is how long the filter is that a call of seccomp(2) sets: what struct sock_fprog in its data begins with.
func (p *Program) filterLength(o *op) (n uint16, ok bool) {
	at := o.args[2] - dataBase
	if o.nr != unix.SYS_SECCOMP || o.args[0] != unix.SECCOMP_SET_MODE_FILTER || o.indirect != 0 || at < 0 || at+2 > int64(len(p.data)) {
		return 0, false
	}
	return binary.LittleEndian.Uint16(p.data[at:]), true
}
