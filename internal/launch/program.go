//go:build linux

package launch

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// This file is the builder: it turns calls into ops and collects their data. It runs in the
// caller's process and makes no system call.

// A Program is a list of system calls with their data. The zero Program is empty and ready; once
// started it must not be changed. It is not safe for concurrent use.
type Program struct {
	ops     []op
	steps   []uint32 // of each op, an index into names
	names   []Step
	data    []byte
	strings map[string]Arg
	blobs   []blob
	labels  []int // op that each label stands before; -1 while unknown
	fixups  []fixup
	fds     []*os.File
	extra   int // descriptors from 3 on that New was told of
}

// A Step names what a group of calls is for: it is what the user sees when one of them fails.
type Step struct{ Name, Object string }

// An Arg is an argument of a call: a number, the address of a string or buffer, or a result that
// will be known by then. Numbers lie in [-1<<62, 1<<62); greater ones go through memory, as in
// p.Value(p.Bytes(...)).
type Arg int64

// A result is marked by bit 62; neither small numbers of either sign nor addresses have it alone.
const resultMark = 1 << 62

func (a Arg) isResult() bool { return uint64(a)>>62 == 1 }

// addr is the address where the value of a result is kept.
func (a Arg) addr() Arg { return a &^ resultMark }

// A Label is a place in the program that calls can jump to.
type Label int

// next is the label of the op that follows.
const next Label = -1

// An Op is a call in a program, for saying what follows from its result.
type Op struct {
	p *Program
	i int
}

type fixup struct {
	op    int
	field int // -2 next, -1 fail, else a case
	label Label
}

type blob struct {
	addr Arg
	size int
	text bool
}

// New returns a program for a process that will have the given number of extra files, that is, of
// descriptors from 3 on that are not the program's own.
func New(extraFiles int) *Program {
	p := &Program{
		ops:     make([]op, opFirst, 384),
		steps:   make([]uint32, opFirst, 256),
		names:   []Step{{Name: "start"}},
		data:    make([]byte, messageSize, 8192),
		strings: make(map[string]Arg, 128),
		extra:   extraFiles,
	}
	p.ops[opReport] = op{nr: unix.SYS_WRITE, args: [6]int64{int64(p.socketFD()), failAddr, messageSize}, next: opExit + 1, fail: opExit + 1}
	p.ops[opExit] = op{nr: unix.SYS_EXIT_GROUP, args: [6]int64{ExitFailed}}
	// What is inherited besides the standard streams and the extra files is the program's own.
	p.Call(unix.SYS_CLOSE_RANGE, Arg(p.socketFD()), 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	p.Call(unix.SYS_PRCTL, unix.PR_SET_NAME, p.Str(ProcessName))
	return p
}

// ExitFailed is the exit code of a program that has reported a failure.
const ExitFailed = 125

// ProcessName is the name, as in /proc/PID/comm, of a process that is still in the launcher.
const ProcessName = "container:start"

// socketFD is the descriptor of the socket to the parent in the child; after it comes the file
// that is executed, and then those of File.
func (p *Program) socketFD() int { return 3 + p.extra }
func (p *Program) imageFD() int  { return 4 + p.extra }

// SocketFD is the child's descriptor of the socket to its parent. It is the first descriptor that
// must not stay open when the process becomes another program.
func (p *Program) SocketFD() Arg { return Arg(p.socketFD()) }

// File makes f open in the child and returns its number there. It is closed at execve. As with
// os/exec, a file of the runtime's poller is set to blocking mode.
func (p *Program) File(f *os.File) Arg {
	p.fds = append(p.fds, f)
	return Arg(p.imageFD() + len(p.fds))
}

// Step names what the calls that follow are for.
func (p *Program) Step(name, object string) {
	p.names = append(p.names, Step{name, object})
}

// Call appends a system call.
func (p *Program) Call(nr uint32, args ...Arg) Op {
	o := op{nr: nr}
	for i, a := range args {
		if a.isResult() {
			o.indirect |= 1 << i
			a = a.addr()
		}
		o.args[i] = int64(a)
	}
	p.ops = append(p.ops, o)
	p.steps = append(p.steps, uint32(len(p.names)-1))
	return Op{p, len(p.ops) - 1}
}

// Sub appends a subtraction, a - b. With b 0 it looks at a, or copies it.
func (p *Program) Sub(a, b Arg) Op { return p.Call(opSub, a, b) }

// Jump goes on at l.
func (p *Program) Jump(l Label) { p.Sub(0, 0).Then(l) }

// Exit ends the process with the given code, without a report.
func (p *Program) Exit(code Arg) { p.Call(unix.SYS_EXIT_GROUP, code) }

// Fail reports a failure of the current step, as if a call had failed with err.
func (p *Program) Fail(err unix.Errno) { p.Sub(-Arg(err), 0) }

// ChildFailed is not 0 after a child that has shared the memory with this process has reported a failure.
func (p *Program) ChildFailed() Arg { return failAddr | resultMark }

// Label returns a new label, to be placed with Here.
func (p *Program) Label() Label {
	p.labels = append(p.labels, -1)
	return Label(len(p.labels) - 1)
}

// Here places l before the next call. A label has one place.
func (p *Program) Here(l Label) {
	if p.labels[l] >= 0 {
		panic("launch: a label in two places")
	}
	p.labels[l] = len(p.ops)
}

// Result is the result of the call, for arguments of calls that come later.
func (o Op) Result() Arg {
	c := &o.p.ops[o.i]
	if c.store == 0 {
		c.store = uint64(o.p.Zero(8))
	}
	return Arg(c.store) | resultMark
}

// StoreTo writes the result, 8 bytes, to the buffer at addr, or over an earlier result.
func (o Op) StoreTo(addr Arg) Op {
	if addr.isResult() {
		addr = addr.addr()
	}
	o.p.ops[o.i].store = uint64(addr)
	return o
}

// Case goes on at l if the low 32 bits of the result are value.
func (o Op) Case(value int32, l Label) Op {
	c := &o.p.ops[o.i]
	for i := range c.cases {
		if c.cases[i].target == 0 {
			c.cases[i] = opCase{value, 1}
			o.p.fixups = append(o.p.fixups, fixup{o.i, i, l})
			return o
		}
	}
	panic(fmt.Sprintf("launch: more than %d cases", maxCases))
}

// On goes on at l if the call fails with err.
func (o Op) On(err unix.Errno, l Label) Op { return o.Case(-int32(err), l) }

// Ignore goes on with the next call if this one fails with one of errs.
func (o Op) Ignore(errs ...unix.Errno) Op {
	for _, err := range errs {
		o.On(err, next)
	}
	return o
}

// Else goes on at l if the call fails in a way that no case expects.
func (o Op) Else(l Label) Op {
	o.p.fixups = append(o.p.fixups, fixup{o.i, -1, l})
	return o
}

// IgnoreAll goes on with the next call however this one ends.
func (o Op) IgnoreAll() Op { return o.Else(next) }

// Then goes on at l if the call succeeds and no case expects its result.
func (o Op) Then(l Label) Op {
	o.p.fixups = append(o.p.fixups, fixup{o.i, -2, l})
	return o
}

// Value is the 8 bytes at addr, at the time of the call that uses it. Of 4-byte fields the cases
// see the right half.
func (p *Program) Value(addr Arg) Arg { return addr | resultMark }

// Str is the address of a string, ended by a zero byte.
func (p *Program) Str(s string) Arg {
	if a, ok := p.strings[s]; ok {
		return a
	}
	a := Arg(dataBase + len(p.data))
	p.data = append(append(p.data, s...), 0)
	p.strings[s] = a
	p.blobs = append(p.blobs, blob{a, len(s), true})
	return a
}

// Bytes is the address of a copy of b, aligned to 8.
func (p *Program) Bytes(b []byte) Arg {
	for len(p.data)%8 != 0 {
		p.data = append(p.data, 0)
	}
	a := Arg(dataBase + len(p.data))
	p.data = append(p.data, b...)
	p.blobs = append(p.blobs, blob{a, len(b), false})
	return a
}

// Words is the address of 8-byte words: a structure, or an array of addresses. Results cannot be
// among them: they are not known yet.
func (p *Program) Words(words ...Arg) Arg {
	b := make([]byte, 0, 8*len(words))
	for _, w := range words {
		if w.isResult() {
			panic("launch: a result is not data")
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(w))
	}
	return p.Bytes(b)
}

// Strs is the address of a list of strings with a null address behind, as for execve.
func (p *Program) Strs(list []string) Arg {
	words := make([]Arg, 0, len(list)+1)
	for _, s := range list {
		words = append(words, p.Str(s))
	}
	return p.Words(append(words, 0)...)
}

// Zero is the address of n bytes of zeroes, aligned to 8, for a call to fill.
func (p *Program) Zero(n int) Arg {
	for len(p.data)%8 != 0 {
		p.data = append(p.data, 0)
	}
	a := Arg(dataBase + len(p.data))
	p.data = append(p.data, make([]byte, (n+7)&^7)...)
	return a
}

// maxData bounds the data of a program. Arguments and environment of one process are limited by
// the kernel to 6 MiB (execve(2)).
const maxData = 16 << 20

// Send writes a message to the parent: see Child.Next. Tags are small numbers; those from 4 million
// on are failures. If the parent is gone, the process ends.
func (p *Program) Send(tag uint32, value Arg) {
	if tag >= opsBase {
		panic(fmt.Sprintf("launch: the tag %#x means a failure", tag))
	}
	msg := p.Words(Arg(tag), 0)
	p.Sub(value, 0).StoreTo(msg + 8).IgnoreAll() // a negative value is no failure
	p.Call(unix.SYS_WRITE, p.SocketFD(), msg, messageSize)
}

// Wait waits until the parent says Go. If the parent is gone, the process ends.
func (p *Program) Wait() { p.WaitFor(p.Zero(8), 8) }

// WaitFor waits until the parent says Send, and returns how many bytes of its text are in the buffer, which has size. If the
// parent is gone, the process ends.
func (p *Program) WaitFor(buf, size Arg) Op {
	gone, on := p.Label(), p.Label()
	again := p.Label()
	p.Here(again)
	read := p.Call(unix.SYS_READ, p.SocketFD(), buf, size).
		On(unix.EINTR, again).Case(0, gone).On(unix.ECONNRESET, gone). // reset: a message of ours was not read
		Then(on)
	p.Here(gone)
	p.Exit(ExitFailed)
	p.Here(on)
	return read
}

// Crash ends the process with SIGSEGV, without a system call.
func (p *Program) Crash() { p.Call(opCrash, p.Value(0)) }

// Len is the number of calls.
func (p *Program) Len() int { return len(p.ops) }

// StepOf is the step that call i belongs to.
func (p *Program) StepOf(i int) Step { return p.names[p.steps[i]] }

// link resolves the labels and puts two ops behind the last one: one that fails, so that no program runs
// into what follows in memory, and the end of a process that may not even exit.
func (p *Program) link() ([]op, error) {
	if len(p.ops) > maxOps {
		return nil, fmt.Errorf("launch: %d calls, the limit is %d: %w", len(p.ops), maxOps, unix.E2BIG)
	}
	if len(p.data) > maxData {
		return nil, fmt.Errorf("launch: %d bytes of data, the limit is %d: %w", len(p.data), maxData, unix.E2BIG)
	}
	ops := make([]op, len(p.ops)+2)
	copy(ops, p.ops)
	ops[len(p.ops)] = op{nr: opSub, args: [6]int64{-int64(unix.ENOEXEC)}}
	ops[len(p.ops)+1] = op{nr: opCrash, indirect: 1}
	ops[opExit].fail = uint32(len(p.ops) + 2)
	for _, f := range p.fixups {
		target := f.op + 1
		if f.label != next {
			target = p.labels[f.label]
		}
		if target < 0 || target >= len(p.ops) {
			return nil, fmt.Errorf("launch: call %d jumps to nowhere", f.op)
		}
		switch t := uint32(target + 1); f.field {
		case -2:
			ops[f.op].next = t
		case -1:
			ops[f.op].fail = t
		default:
			ops[f.op].cases[f.field].target = t
		}
	}
	for i := range p.ops {
		if err := p.checkAddresses(i); err != nil {
			return nil, err
		}
	}
	return ops, nil
}

// checkAddresses tells whether the launcher can load the results that call i uses, and store its
// own. A number that is too great for an Arg looks like a result.
func (p *Program) checkAddresses(i int) error {
	inData := func(addr uint64) bool { return addr >= dataBase && addr <= dataBase+uint64(len(p.data))-8 }
	o := &p.ops[i]
	for j, a := range o.args {
		if o.indirect>>j&1 == 1 && !inData(uint64(a)) && o.nr != opCrash {
			return fmt.Errorf("launch: argument %d of call %d is neither a number nor a result", j, i)
		}
	}
	if o.store != 0 && !inData(o.store) {
		return fmt.Errorf("launch: the result of call %d goes to no buffer", i)
	}
	return nil
}
