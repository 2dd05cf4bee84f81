package seccomp

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
)

// bytesSource is randomness of a fuzzer's bytes; when they are used up it goes on by itself.
type bytesSource struct {
	data []byte
	rest *rand.PCG
}

// Uint64 returns the next eight bytes.
func (b *bytesSource) Uint64() uint64 {
	if len(b.data) < 8 {
		return b.rest.Uint64()
	}
	v := binary.LittleEndian.Uint64(b.data)
	b.data = b.data[8:]
	return v
}

func fromBytes(data []byte) source {
	return source{rand.New(&bytesSource{data, rand.NewPCG(uint64(len(data)), 1)})}
}

// programFrom reads a program, as the kernel has it.
func programFrom(data []byte) (program []Instruction) {
	for ; len(data) >= 8; data = data[8:] {
		program = append(program, Instruction{
			binary.LittleEndian.Uint16(data), data[2], data[3], binary.LittleEndian.Uint32(data[4:]),
		})
	}
	return program
}

func toBytes(program []Instruction) (data []byte) {
	for _, i := range program {
		data = binary.LittleEndian.AppendUint16(data, i.Code)
		data = append(data, i.Jt, i.Jf)
		data = binary.LittleEndian.AppendUint32(data, i.K)
	}
	return data
}

// FuzzCompile compares compiled filters with what they mean.
func FuzzCompile(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte(strings.Repeat("\x00\xff\x80\x01\x7f\x40seccomp", 40)))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := fromBytes(data)
		filter := s.filter()
		program := compiled(t, filter)
		for range 100 {
			d := s.data(filter)
			if got, want := run(program, d.words()), Evaluate(filter, d); got != want {
				t.Fatalf("%+v\nat %+v\ngives %v, want %v\n%s", filter, d, got, want, Disassemble(program))
			}
		}
	})
}

// FuzzSimulate runs anything: an error, or an end, and no panic.
func FuzzSimulate(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add(toBytes(compiled(f, defaultFilter(X86_64))), make([]byte, 48))
	f.Add(toBytes(compiled(f, defaultFilter(ARM))), []byte(strings.Repeat("\xff", 48)))
	for seed := range uint64(20) {
		f.Add(toBytes(source{rand.New(rand.NewPCG(seed, 0))}.program(500)), []byte{500 & 0xff, 500 >> 8})
	}
	f.Fuzz(func(t *testing.T, data, call []byte) {
		program, s := programFrom(data), fromBytes(call)
		d := Data{Nr: int32(s.Uint64()), Arch: pick(s, allABIs).Audit(), InstructionPointer: s.Uint64()}
		for i := range d.Args {
			d.Args[i] = s.Uint64()
		}
		if _, err := Simulate(program, d); err != nil && Verify(program) == nil {
			t.Errorf("%v:\n%s", err, Disassemble(program))
		}
	})
}

// FuzzDisassemble writes anything: a line for each instruction.
func FuzzDisassemble(f *testing.F) {
	f.Add([]byte{})
	f.Add(toBytes(compiled(f, defaultFilter(X86_64, X86, X32))))
	f.Add(toBytes(source{rand.New(rand.NewPCG(1, 0))}.program(500)))
	f.Fuzz(func(t *testing.T, data []byte) {
		program := programFrom(data)
		text := Disassemble(program)
		if lines := strings.Count(text, "\n"); lines != len(program) {
			t.Errorf("%d lines for %d instructions:\n%s", lines, len(program), text)
		}
		for _, r := range text {
			if r != '\n' && (r < ' ' || r > '~') {
				t.Fatalf("%q", text)
			}
		}
	})
}
