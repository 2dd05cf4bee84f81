//go:build linux && (amd64 || arm64)

package launch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// This file compares the launcher with a model of it in Go, by random programs that only jump
// forward.

const modelData = 512

// A modelOp is an op of the model: a subtraction, or one of two system calls whose results are known.
type modelOp struct {
	nr    uint32
	args  [2]modelArg
	store int // offset in the data, or -1
	cases []modelCase
	next  int // index of an op, or -1
	fail  int
}

type modelArg struct {
	value int64
	addr  int // offset in the data, or -1: then it is value
}

type modelCase struct {
	value int32
	to    int
}

func FuzzProgram(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, uint16(50*seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, n uint16) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		data := make([]byte, modelData)
		for i := range data {
			data[i] = byte(rnd.Uint32() >> rnd.IntN(9))
		}
		ops := make([]modelOp, n%2048)
		for i := range ops {
			ops[i] = randomOp(rnd, i, len(ops))
		}
		p, addr := buildModel(ops, data)

		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		first := p.Len() - len(ops)
		p.Call(unix.SYS_WRITE, 1, addr, modelData)
		p.Exit(0)
		_, _, failure := run(t, p, &Attr{Stdio: [3]*os.File{nil, w, nil}})
		w.Close()
		got, _ := io.ReadAll(r)

		failed, errno := runModel(ops, data)
		if failed < 0 {
			if failure != nil || !bytes.Equal(got, data) {
				t.Errorf("%d ops: %v\ngot  %x\nwant %x", len(ops), failure, got, data)
			}
			return
		}
		var e *Error
		if !errors.As(failure, &e) || e.Op != first+failed || e.Errno != errno {
			t.Errorf("%d ops: %v; want call %d to fail with %d", len(ops), failure, first+failed, errno)
		}
	})
}

// randomOp is op i of n.
func randomOp(rnd *rand.Rand, i, n int) modelOp {
	o := modelOp{nr: opSub, store: -1, next: -1, fail: -1}
	switch rnd.IntN(10) {
	case 0:
		o.nr = unix.SYS_UMASK
	case 1:
		o.nr = unix.SYS_CLOSE
	}
	number := func() int64 {
		switch rnd.IntN(4) {
		case 0:
			return int64(rnd.IntN(9) - 4)
		case 1: // around the ends of the low half
			return int64(rnd.IntN(5)-2) + int64(rnd.IntN(5)-2)<<31
		default:
			return int64(rnd.Uint64()) >> (2 + rnd.IntN(60))
		}
	}
	for j := range o.args {
		o.args[j] = modelArg{value: number(), addr: -1}
		if rnd.IntN(2) == 0 {
			o.args[j].addr = rnd.IntN(modelData - 7) // aligned or not
		}
	}
	if o.nr == unix.SYS_CLOSE { // of nothing that is open
		o.args[0] = modelArg{value: -1, addr: -1}
	}
	if rnd.IntN(4) > 0 {
		o.store = rnd.IntN(modelData - 7)
	}
	to := func() int { return min(i+1+rnd.IntN(6), n) }
	for range rnd.IntN(maxCases + 1) {
		value := int32(number())
		if rnd.IntN(3) == 0 {
			value = -int32(unix.EBADF)
		}
		o.cases = append(o.cases, modelCase{value, to()})
	}
	if rnd.IntN(2) == 0 {
		o.next = to()
	}
	if rnd.IntN(1000) > 0 { // else it ends here if the result is negative
		o.fail = to()
	}
	return o
}

// buildModel builds the program of ops, and returns the address of its data.
func buildModel(ops []modelOp, data []byte) (*Program, Arg) {
	p := New(0)
	addr := p.Bytes(data)
	p.Call(unix.SYS_UMASK, 0)
	labels := make([]Label, len(ops)+1)
	for i := range labels {
		labels[i] = p.Label()
	}
	for i, m := range ops {
		p.Here(labels[i])
		var args [2]Arg
		for j, a := range m.args {
			if args[j] = Arg(a.value); a.addr >= 0 {
				args[j] = p.Value(addr + Arg(a.addr))
			}
		}
		o := p.Call(m.nr, args[:]...)
		if m.store >= 0 {
			o.StoreTo(addr + Arg(m.store))
		}
		for _, c := range m.cases {
			o.Case(c.value, labels[c.to])
		}
		if m.next >= 0 {
			o.Then(labels[m.next])
		}
		if m.fail >= 0 {
			o.Else(labels[m.fail])
		}
	}
	p.Here(labels[len(ops)])
	return p, addr
}

// runModel does to data what the program of ops does. If an op fails for good it returns its index
// and error, else -1.
func runModel(ops []modelOp, data []byte) (failed int, err unix.Errno) {
	var umask int64
	for i := 0; i < len(ops); {
		o := &ops[i]
		var v [2]int64
		for j, a := range o.args {
			if v[j] = a.value; a.addr >= 0 {
				v[j] = int64(binary.LittleEndian.Uint64(data[a.addr:]))
			}
		}
		var result int64
		switch o.nr {
		case unix.SYS_UMASK:
			result, umask = umask, v[0]&0o777
		case unix.SYS_CLOSE:
			result = -int64(unix.EBADF)
		default:
			result = v[0] - v[1]
		}
		if o.store >= 0 {
			binary.LittleEndian.PutUint64(data[o.store:], uint64(result))
		}
		to := -1
		for _, c := range o.cases {
			if c.value == int32(result) {
				to = c.to
				break
			}
		}
		switch {
		case to >= 0:
		case result >= 0:
			to = o.next
		case o.fail >= 0:
			to = o.fail
		default:
			return i, unix.Errno(-result)
		}
		if to < 0 {
			to = i + 1
		}
		i = to
	}
	return -1, 0
}
