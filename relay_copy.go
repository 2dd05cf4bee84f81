//go:build linux

package container

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file joins two connections. It runs in the caller's process.

// joinConns copies between a and b, both ways, until both have ended, and closes them. The end of one direction is passed on as such, so that an answer
// can follow a question that has ended; a connection that breaks breaks the other, with a reset where there is such a thing. Who reads
// slowly is written to slowly: nothing is kept but what is in the kernel. An idle connection costs its descriptor and two goroutines.
func joinConns(a, b net.Conn) {
	pipes.enter()
	defer pipes.leave()
	var ended [2]atomic.Bool // we have said to a, to b, that there is no more
	half := func(dst, src net.Conn, told, heard *atomic.Bool) {
		// Of a connection that was reset, whoever writes may be told first, and then it looks to whoever reads as if it had ended.
		if err := copyConn(dst, src); err != nil || !heard.Load() && wasReset(src) {
			resetConn(a)
			resetConn(b)
			return
		}
		told.Store(true)
		closeWrite(dst)
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		half(a, b, &ended[0], &ended[1])
	}()
	half(b, a, &ended[1], &ended[0])
	<-back
	a.Close()
	b.Close()
}

// closeWrite ends one direction. Where that cannot be done it ends both: who waits for the end waits forever else.
func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
		return
	}
	c.Close()
}

// resetConn closes a connection in a way that the other side can tell from its end.
func resetConn(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		l.SetLinger(0)
	}
	c.Close()
}

// wasReset tells whether a connection of TCP that has ended has no state any more. One that the other side has closed waits for us to.
func wasReset(c net.Conn) bool {
	const closed = 7 // TCP_CLOSE
	t, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return false
	}
	reset := false
	raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		reset = err == nil && info.State == closed
	})
	return reset
}

// copyConn copies until src ends, which is no error.
func copyConn(dst, src net.Conn) error {
	from, to := spliceable(src), spliceable(dst)
	if from == nil || to == nil {
		_, err := io.Copy(dst, src)
		return err
	}
	for {
		p, n, err := pipes.fill(from)
		if err != nil || n == 0 {
			return err
		}
		if err := p.drain(to, n); err != nil {
			p.close() // there is something in it
			return err
		}
		pipes.put(p)
	}
}

// spliceable is the connection's descriptor if the kernel can move its bytes into a pipe and out of one; else nil.
func spliceable(c net.Conn) syscall.RawConn {
	var s syscall.Conn
	switch c := c.(type) {
	case *net.TCPConn:
		s = c
	case *net.UnixConn:
		if c.LocalAddr().Network() != "unix" { // packets have ends, which would be lost
			return nil
		}
		s = c
	default:
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// A splicePipe is what bytes go through between two sockets, without being copied.
type splicePipe struct{ r, w int }

const pipeSize = 256 << 10

func newSplicePipe() (*splicePipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize) // who has many gets less, which is slower
	return &splicePipe{fds[0], fds[1]}, nil
}

func (p *splicePipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

// splice is splice(2), as much as can be without waiting.
func splice(from, to, n int) (int, error) {
	for {
		done, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return int(done), err
		}
	}
}

// pastUrgent reads what splice(2) stops at for good: what comes after a byte of urgent data, which itself is left out, as read(2) does.
func (p *splicePipe) pastUrgent(from int) (int, error) {
	var b [512]byte // less than any pipe takes at once
	for {
		n, _, err := unix.Recvfrom(from, b[:], unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, nil
		default:
			return unix.Write(p.w, b[:n])
		}
	}
}

// drain moves n bytes out of the pipe.
func (p *splicePipe) drain(to syscall.RawConn, n int) error {
	for n > 0 {
		var done int
		var err error
		if werr := to.Write(func(fd uintptr) bool {
			done, err = splice(p.r, int(fd), n)
			return err != unix.EAGAIN
		}); werr != nil {
			return werr
		}
		if err != nil {
			return err
		}
		if done == 0 {
			return io.ErrUnexpectedEOF
		}
		n -= done
	}
	return nil
}

// pipePool keeps pipes while connections are joined. A connection has one only while bytes of it move.
type pipePool struct {
	mu    sync.Mutex
	users int
	free  []*splicePipe
}

var pipes pipePool

const maxFreePipes = 16

func (pp *pipePool) enter() {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	pp.users++
}

// leave closes the pipes with the last user.
func (pp *pipePool) leave() {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	if pp.users--; pp.users == 0 {
		for _, p := range pp.free {
			p.close()
		}
		pp.free = nil
	}
}

func (pp *pipePool) get() (*splicePipe, error) {
	pp.mu.Lock()
	if n := len(pp.free); n > 0 {
		p := pp.free[n-1]
		pp.free = pp.free[:n-1]
		pp.mu.Unlock()
		return p, nil
	}
	pp.mu.Unlock()
	return newSplicePipe()
}

// put takes an empty pipe back.
func (pp *pipePool) put(p *splicePipe) {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	if len(pp.free) < maxFreePipes {
		pp.free = append(pp.free, p)
		return
	}
	p.close()
}

// fill waits for bytes of a connection, and returns a pipe with them; 0 at the end.
func (pp *pipePool) fill(from syscall.RawConn) (p *splicePipe, n int, err error) {
	rerr := from.Read(func(fd uintptr) bool {
		if p, err = pp.get(); err != nil {
			return true
		}
		if n, err = splice(int(fd), p.w, pipeSize); err == unix.EAGAIN || err == nil && n == 0 {
			n, err = p.pastUrgent(int(fd))
		}
		if err != nil || n == 0 {
			pp.put(p)
		}
		return err != unix.EAGAIN
	})
	if rerr != nil {
		err = rerr
	}
	return p, n, err
}
