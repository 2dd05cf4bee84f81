package seccomp

import (
	"slices"
	"strconv"
	"strings"
	"sync"
)

// This file looks up system calls by name and by number. The tables are text until somebody asks.

//go:generate sh -c "go run mktables/main.go \"$DOLLAR(go list -m -f '{{.Dir}}' golang.org/x/sys)/unix\" >zcalls.new && mv zcalls.new zcalls.go"

// calls are the system calls of an ABI.
type calls struct {
	numbers []uint32 // ascending, without X32's bit
	names   []string // of these numbers
	byName  map[string]uint32
}

var (
	x86_64Calls  = sync.OnceValue(func() *calls { return parseCalls(callsX86_64) })
	x86Calls     = sync.OnceValue(func() *calls { return parseCalls(callsX86) })
	x32Calls     = sync.OnceValue(func() *calls { return parseCalls(callsX32) })
	aarch64Calls = sync.OnceValue(func() *calls { return parseCalls(callsAARCH64) })
	armCalls     = sync.OnceValue(func() *calls {
		c := parseCalls(callsARM)
		c.byName["sync_file_range2"] = c.byName["arm_sync_file_range"] // another name in the kernel's headers
		return c
	})
)

// calls returns those of an ABI, and nil for one that is not known.
func (a ABI) calls() *calls {
	switch a {
	case X86_64:
		return x86_64Calls()
	case X86:
		return x86Calls()
	case X32:
		return x32Calls()
	case AARCH64:
		return aarch64Calls()
	case ARM:
		return armCalls()
	}
	return nil
}

// parseCalls reads names, each of which has the number after that of the name before, or the one that stands before it.
func parseCalls(text string) *calls {
	words := strings.Fields(text)
	c := &calls{
		numbers: make([]uint32, 0, len(words)),
		names:   make([]string, 0, len(words)),
		byName:  make(map[string]uint32, len(words)),
	}
	next := uint32(0)
	for _, word := range words {
		if word[0] <= '9' {
			number, err := strconv.ParseUint(word, 10, 32)
			if err != nil {
				panic(err) // the text is a constant
			}
			next = uint32(number)
			continue
		}
		c.numbers, c.names, c.byName[word] = append(c.numbers, next), append(c.names, word), next
		next++
	}
	return c
}

// Number returns the number of a system call, without X32's bit. It is false if the ABI has no such call, or is not known.
func Number(abi ABI, name string) (uint32, bool) {
	c := abi.calls()
	if c == nil {
		return 0, false
	}
	number, ok := c.byName[name]
	return number, ok
}

// Name returns the name of a system call by its number, which may have X32's bit if the ABI is X32. It is false if no
// call is known by that number.
func Name(abi ABI, number uint32) (string, bool) {
	c := abi.calls()
	if c == nil {
		return "", false
	}
	if abi == X32 {
		number &^= x32Bit
	}
	i, ok := slices.BinarySearch(c.numbers, number)
	if !ok {
		return "", false
	}
	return c.names[i], true
}
