//go:build linux

package launch

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file prints a program, one call a line, much as strace would.

// String lists the program: the step when it changes, then for each call its number, its name and
// arguments, the name of its result if a later call needs it, and what follows from it.
//
//	mount /proc
//	  41 %3 = fsopen("proc", 1)
//	  42 fsconfig(%3, 6, 0, 0, 0)
//
// %3 is a result, &100 the address of a buffer, and "on ENOENT: 50" a jump.
func (p *Program) String() string {
	var b strings.Builder
	l := p.newLister()
	step := -1
	for i := opFirst; i < len(p.ops); i++ {
		if s := int(p.steps[i]); s != step {
			step = s
			b.WriteString(strings.TrimSpace(p.names[s].Name + " " + p.names[s].Object))
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "  %3d %s\n", i, l.call(i))
	}
	return b.String()
}

type lister struct {
	p       *Program
	blobs   map[Arg]blob
	results map[uint64]string // address to %N
	jumps   map[int][]fixup
}

func (p *Program) newLister() *lister {
	l := &lister{p: p, blobs: map[Arg]blob{}, results: map[uint64]string{}, jumps: map[int][]fixup{}}
	for _, b := range p.blobs {
		l.blobs[b.addr] = b
	}
	for _, o := range p.ops {
		if o.store != 0 && l.results[o.store] == "" {
			l.results[o.store] = "%" + strconv.Itoa(len(l.results)+1)
		}
	}
	for _, f := range p.fixups {
		l.jumps[f.op] = append(l.jumps[f.op], f)
	}
	return l
}

func (l *lister) call(i int) string {
	o := &l.p.ops[i]
	var b strings.Builder
	if o.store != 0 {
		b.WriteString(l.results[o.store] + " = ")
	}
	n := len(o.args)
	for n > 0 && o.args[n-1] == 0 && o.indirect>>(n-1)&1 == 0 {
		n--
	}
	args := make([]string, n)
	for j := range args {
		args[j] = l.arg(Arg(o.args[j]), o.indirect>>j&1 == 1)
	}
	b.WriteString(syscallName(o.nr) + "(" + strings.Join(args, ", ") + ")")
	if n, ok := l.p.filterLength(o); ok {
		fmt.Fprintf(&b, " of %d instructions", n)
	}
	for _, f := range l.jumps[i] {
		to := "next"
		if f.label != next {
			to = strconv.Itoa(l.p.labels[f.label])
		}
		switch f.field {
		case -2:
			b.WriteString(" then " + to)
		case -1:
			b.WriteString(" else " + to)
		default:
			b.WriteString(" on " + caseName(o.cases[f.field].value) + ": " + to)
		}
	}
	return b.String()
}

func (l *lister) arg(a Arg, indirect bool) string {
	if indirect {
		if name := l.results[uint64(a)]; name != "" {
			return name
		}
		return "*" + l.arg(a, false)
	}
	if b, ok := l.blobs[a]; ok && b.text {
		off := int(a - dataBase)
		return strconv.Quote(string(l.p.data[off : off+b.size]))
	}
	switch {
	case a >= dataBase && a < dataBase+Arg(len(l.p.data)):
		return "&" + strconv.Itoa(int(a-dataBase))
	case a == unix.AT_FDCWD:
		return "AT_FDCWD"
	case a > 1<<12:
		return fmt.Sprintf("%#x", int64(a))
	}
	return strconv.FormatInt(int64(a), 10)
}

func caseName(v int32) string {
	if v < 0 {
		if name := unix.ErrnoName(unix.Errno(-v)); name != "" {
			return name
		}
	}
	return strconv.Itoa(int(v))
}
