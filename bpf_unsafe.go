//go:build linux

package container

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file holds bpf(2), as far as device rules need it. Descriptors that it returns are close-on-exec: the kernel makes no others.

// bpfAttrSize is more than any kernel's union bpf_attr has. A kernel takes what is zero behind its own; and
// some since Linux 6.17 write to fields of a query behind what they are given, so each attribute has them all.
const bpfAttrSize = 256

// bpfAddress is the address of something, which stays where it is until pin lets go of it. Attributes have addresses of 64
// bits on any processor.
func bpfAddress[T any](pin *runtime.Pinner, p *T) uint64 {
	pin.Pin(p)
	return uint64(uintptr(unsafe.Pointer(p)))
}

// bpfTries is how often a call is made again that a signal has interrupted. The Go runtime sends signals to its own
// threads, and the kernel stops verifying a program for one.
const bpfTries = 100

func bpf(command int, attr *[bpfAttrSize]byte) (result int, err error) {
	for range bpfTries {
		r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(unsafe.Pointer(attr)), bpfAttrSize)
		if errno == 0 {
			return int(r), nil
		}
		if err = errno; errno != unix.EAGAIN && errno != unix.EINTR {
			break
		}
	}
	return -1, err
}

// bpfLoadDevices loads a program for devices, and returns its descriptor. The verifier writes to log, unless that is empty.
func bpfLoadDevices(name string, program []bpfInsn, log []byte) (fd int, err error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	attr := new(struct {
		programType, count     uint32
		instructions, license  uint64
		logLevel, logSize      uint32
		log                    uint64
		kernelVersion, flags   uint32
		name                   [16]byte
		ifIndex, attachingType uint32
		_                      [bpfAttrSize - 72]byte
	})
	const logLevel = 4 // BPF_LOG_STATS: complaints, and what the check has taken
	license := []byte("Apache-2.0\x00")
	attr.programType, attr.attachingType = unix.BPF_PROG_TYPE_CGROUP_DEVICE, unix.BPF_CGROUP_DEVICE
	attr.count, attr.instructions = uint32(len(program)), bpfAddress(&pin, &program[0])
	attr.license = bpfAddress(&pin, &license[0])
	copy(attr.name[:len(attr.name)-1], name)
	if len(log) > 0 {
		attr.logLevel, attr.logSize, attr.log = logLevel, uint32(len(log)), bpfAddress(&pin, &log[0])
	}
	return bpf(unix.BPF_PROG_LOAD, (*[bpfAttrSize]byte)(unsafe.Pointer(attr)))
}

// bpfAttachment is the attribute of attaching and of detaching.
type bpfAttachment struct {
	cgroup, program, kind, flags uint32
	replaced                     uint32
	_                            [bpfAttrSize - 20]byte
}

func (a *bpfAttachment) do(command int) error {
	_, err := bpf(command, (*[bpfAttrSize]byte)(unsafe.Pointer(a)))
	return err
}

// bpfQueryDevices returns the ids of the programs that are attached to a cgroup itself.
func bpfQueryDevices(cgroup int) ([]uint32, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	const most = 64 // BPF_CGROUP_MAX_PROGS
	ids := make([]uint32, most)
	attr := new(struct {
		cgroup, kind, flags, attachFlags uint32
		ids                              uint64
		count                            uint32
		_                                [bpfAttrSize - 28]byte
	})
	attr.cgroup, attr.kind, attr.count = uint32(cgroup), unix.BPF_CGROUP_DEVICE, most
	attr.ids = bpfAddress(&pin, &ids[0])
	if _, err := bpf(unix.BPF_PROG_QUERY, (*[bpfAttrSize]byte)(unsafe.Pointer(attr))); err != nil {
		return nil, err
	}
	return ids[:min(attr.count, most)], nil
}

// bpfOpen opens a program by its id.
func bpfOpen(id uint32) (fd int, err error) {
	attr := new(struct {
		id uint32
		_  [bpfAttrSize - 4]byte
	})
	attr.id = id
	return bpf(unix.BPF_PROG_GET_FD_BY_ID, (*[bpfAttrSize]byte)(unsafe.Pointer(attr)))
}

// bpfName is the name of a program.
func bpfName(fd int) (string, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	info := new(struct {
		_    [64]byte
		name [16]byte
		_    [bpfAttrSize - 80]byte
	})
	attr := new(struct {
		fd, size uint32
		info     uint64
		_        [bpfAttrSize - 16]byte
	})
	attr.fd, attr.size, attr.info = uint32(fd), uint32(unsafe.Sizeof(*info)), bpfAddress(&pin, info)
	_, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, (*[bpfAttrSize]byte)(unsafe.Pointer(attr)))
	return unix.ByteSliceToString(info.name[:]), err
}
