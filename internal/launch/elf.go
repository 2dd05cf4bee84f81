//go:build linux

package launch

import (
	"encoding/binary"
	"unsafe"
)

// This file lays a program out as a static ELF file of two segments:
//
//	offset 0       headers, launcher, ops   read, execute
//	offset data    strings, buffers         read, write

const (
	elfHeaderSize     = 64
	elfProgHeaderSize = 56
	elfHeaders        = elfHeaderSize + 3*elfProgHeaderSize

	// segmentAlign is the largest page size of a Linux kernel that we may meet (arm64).
	segmentAlign = 64 << 10
)

// image is the content of the ELF file in two pieces. The gap between them is a hole.
type image struct {
	text    []byte
	data    []byte
	dataOff int64
}

// elf lays out ops and data.
func elf(ops []op, data []byte) image {
	opBytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(ops))), len(ops)*opSize)
	text := make([]byte, opsBase-textBase+len(opBytes))
	copy(text[elfHeaders:], code())
	copy(text[opsBase-textBase:], opBytes)
	dataOff := (len(text) + segmentAlign - 1) &^ (segmentAlign - 1)

	le := binary.LittleEndian
	h := text[:elfHeaders]
	copy(h, "\x7fELF\x02\x01\x01") // 64 bits, little-endian, version 1
	le.PutUint16(h[16:], 2)        // ET_EXEC
	le.PutUint16(h[18:], elfMachine)
	le.PutUint32(h[20:], 1)
	le.PutUint64(h[24:], textBase+elfHeaders) // entry
	le.PutUint64(h[32:], elfHeaderSize)       // program headers
	le.PutUint16(h[52:], elfHeaderSize)
	le.PutUint16(h[54:], elfProgHeaderSize)
	le.PutUint16(h[56:], 3)

	const (
		ptLoad     = 1
		ptGNUStack = 0x6474e551
		x, w, r    = 1, 2, 4
	)
	ph := h[elfHeaderSize:]
	segment := func(typ, flags uint32, off, addr, size int) {
		le.PutUint32(ph[0:], typ)
		le.PutUint32(ph[4:], flags)
		le.PutUint64(ph[8:], uint64(off))
		le.PutUint64(ph[16:], uint64(addr))
		le.PutUint64(ph[24:], uint64(addr))
		le.PutUint64(ph[32:], uint64(size))
		le.PutUint64(ph[40:], uint64(size))
		le.PutUint64(ph[48:], segmentAlign)
		ph = ph[elfProgHeaderSize:]
	}
	segment(ptLoad, r|x, 0, textBase, len(text))
	segment(ptLoad, r|w, dataOff, dataBase, len(data))
	segment(ptGNUStack, r|w, 0, 0, 0)
	return image{text: text, data: data, dataOff: int64(dataOff)}
}
