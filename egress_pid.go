//go:build linux

package container

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file finds out which process a connection belongs to; see sock_diag(7). It runs in the caller's process. The answer is for people: a process
// can hand its sockets to others, and the number may be another's by the time that somebody looks.

// A pidFinder asks the kernel of the container's network.
type pidFinder struct {
	file *os.File // a netlink socket of that network
	conn syscall.RawConn
	all  func() ([]int, error) // the container's processes

	search sync.Mutex // one at a time: what belongs to no process is looked for in all
	closed atomic.Bool

	mu     sync.Mutex
	seq    uint32
	recent []int // where something was found, the last first
}

const (
	sockDiagByFamily  = 20
	sizeofInetDiagReq = 56
	sizeofInetDiagMsg = 72
	inetDiagSport     = 4 // in the answer: struct inet_diag_sockid
	inetDiagInode     = 68
	maxRecentPids     = 16
)

func newPidFinder(f *os.File, all func() ([]int, error)) *pidFinder {
	p := &pidFinder{file: f, all: all}
	p.conn, _ = f.SyscallConn()
	return p
}

// Close closes the socket.
func (p *pidFinder) Close() error {
	p.closed.Store(true)
	return p.file.Close()
}

// find returns the number of the process that has the socket of a request; 0 if it is not known.
func (p *pidFinder) find(q EgressRequest) int {
	inode, err := p.inode(q)
	if err != nil || inode == 0 {
		return 0
	}
	p.search.Lock()
	defer p.search.Unlock()
	if p.closed.Load() {
		return 0
	}
	p.mu.Lock()
	recent := slices.Clone(p.recent)
	p.mu.Unlock()
	socket := fmt.Sprintf("socket:[%d]", inode)
	for _, pid := range recent {
		if hasFile(pid, socket) {
			return pid
		}
	}
	pids, err := p.all()
	if err != nil {
		return 0
	}
	for _, pid := range pids {
		if p.closed.Load() {
			return 0
		}
		if !slices.Contains(recent, pid) && hasFile(pid, socket) {
			p.mu.Lock()
			p.recent = slices.Insert(p.recent, 0, pid)
			p.recent = p.recent[:min(len(p.recent), maxRecentPids)]
			p.mu.Unlock()
			return pid
		}
	}
	return 0
}

// exists tells whether the socket of a request is still there. It is if that cannot be said.
func (p *pidFinder) exists(q EgressRequest) bool {
	_, err := p.inode(q)
	return err != unix.ENOENT
}

// inode is the number of a request's socket.
func (p *pidFinder) inode(q EgressRequest) (uint32, error) {
	if p == nil || p.conn == nil || !q.Source.IsValid() {
		return 0, unix.EINVAL
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq++
	var answer []byte
	var err error
	if cerr := p.conn.Control(func(fd uintptr) { answer, err = netlinkAsk(int(fd), inetDiagRequest(p.seq, q), p.seq) }); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, err
	}
	if len(answer) < sizeofInetDiagMsg {
		return 0, unix.EBADMSG
	}
	local := q.Source
	if q.Network != "tcp" {
		return binary.NativeEndian.Uint32(answer[inetDiagInode:]), nil
	}
	if binary.BigEndian.Uint16(answer[inetDiagSport:]) != local.Port() || binary.BigEndian.Uint16(answer[inetDiagSport+2:]) != q.Addr.Port() {
		return 0, unix.ENOENT // a listener that would take such a connection
	}
	return binary.NativeEndian.Uint32(answer[inetDiagInode:]), nil
}

// inetDiagRequest asks for one socket: struct inet_diag_req_v2.
func inetDiagRequest(seq uint32, q EgressRequest) []byte {
	family, protocol := addressFamily(q.Source.Addr()), byte(unix.IPPROTO_TCP)
	src, dst := q.Source, q.Addr
	if q.Network == "udp" { // the kernel has them the other way round, "for historical reasons"
		protocol, src, dst = unix.IPPROTO_UDP, q.Addr, q.Source
	}
	b := []byte{family, protocol, 0, 0}
	b = append(b, 0xff, 0xff, 0xff, 0xff) // in any state
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	for _, a := range []netip.Addr{src.Addr(), dst.Addr()} {
		var words [16]byte
		copy(words[:], a.AsSlice())
		b = append(b, words[:]...)
	}
	b = append(b, 0, 0, 0, 0)
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) // whichever has these ends
	m := netlinkBytes(sockDiagByFamily, 0, b)
	binary.NativeEndian.PutUint32(m[8:], seq)
	return m
}

// netlinkAsk sends a request, which the kernel answers before it returns, and returns the answer without its header.
func netlinkAsk(fd int, request []byte, seq uint32) ([]byte, error) {
	if err := unix.Sendto(fd, request, unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n < unix.SizeofNlMsghdr || binary.NativeEndian.Uint32(buf[8:]) != seq {
			continue
		}
		body := buf[unix.SizeofNlMsghdr:n]
		if binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR {
			return body, nil
		}
		if len(body) < 4 {
			return nil, unix.EBADMSG
		}
		return nil, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
	}
}

// hasFile tells whether a process has a file open whose link in /proc is this.
func hasFile(pid int, link string) bool {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false
	}
	buf := make([]byte, 64)
	return slices.ContainsFunc(names, func(name string) bool {
		n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
		return err == nil && string(buf[:n]) == link
	})
}
