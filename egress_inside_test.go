//go:build linux

package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file is the program in the container of the tests of egress: the test binary itself, which does what lines of its standard
// input say and answers each with a line.

// egressVar makes the test binary that program.
const egressVar = "CONTAINER_TEST_EGRESS"

// egressServerVar makes it a server at an address, see serveElsewhere.
const egressServerVar = "CONTAINER_TEST_EGRESS_SERVER"

func init() {
	if address := os.Getenv(egressServerVar); address != "" {
		time.AfterFunc(5*time.Minute, func() { os.Exit(3) })
		l, err := net.Listen("tcp", address)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		for {
			if c, err := l.Accept(); err == nil {
				go serveElsewhere(c)
			}
		}
	}
	if os.Getenv(egressVar) != "" {
		time.AfterFunc(5*time.Minute, func() { os.Exit(3) })
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			fmt.Println(insideCommand(strings.Fields(lines.Text())))
		}
		os.Exit(0)
	}
}

// serveElsewhere serves one connection.
func serveElsewhere(c net.Conn) {
	defer c.Close()
	first := make([]byte, 100)
	n, err := c.Read(first)
	if err != nil {
		return
	}
	switch first[0] {
	case 's':
		for zeroes := make([]byte, 256<<10); ; {
			if _, err := c.Write(zeroes); err != nil {
				return
			}
		}
	case 't':
		for buf := make([]byte, 256<<10); ; {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	}
	c.Write(first[:n])
	io.Copy(c, c)
}

var insideConns = map[string]net.Conn{}

// insideCommand does one thing. A failure is the name of its errno and how long it took.
func insideCommand(args []string) string {
	begin := time.Now()
	text, err := insideTry(args)
	if err == nil {
		return "ok " + text
	}
	var errno unix.Errno
	name := err.Error()
	if errors.As(err, &errno) {
		name = unix.ErrnoName(errno)
	}
	return fmt.Sprintf("%s %d", strings.ReplaceAll(name, " ", "_"), time.Since(begin).Milliseconds())
}

func insideTry(args []string) (string, error) {
	switch args[0] {
	case "dial": // NAME NETWORK ADDRESS [SOURCE]
		d := net.Dialer{Timeout: 20 * time.Second}
		if len(args) > 4 {
			d.LocalAddr = net.TCPAddrFromAddrPort(mustAddrPort(args[4]))
		}
		c, err := d.Dial(args[2], args[3])
		if err != nil {
			return "", err
		}
		insideConns[args[1]] = c
		return c.LocalAddr().String(), nil
	case "multipath": // NAME ADDRESS: whether both ends speak MPTCP
		d := net.Dialer{Timeout: 20 * time.Second}
		d.SetMultipathTCP(true)
		c, err := d.Dial("tcp", args[2])
		if err != nil {
			return "", err
		}
		insideConns[args[1]] = c
		both, err := c.(*net.TCPConn).MultipathTCP()
		return strconv.FormatBool(both), err
	case "fastopen": // NAME ADDRESS TEXT: data in the first packet
		return "", insideFastOpen(args[1], mustAddrPort(args[2]), args[3])
	case "say": // NAME TEXT: what comes back
		c := insideConns[args[1]]
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write([]byte(args[2])); err != nil {
			return "", err
		}
		return insideRead(c)
	case "read": // NAME
		return insideRead(insideConns[args[1]])
	case "end": // NAME: no more from here, and what still comes
		c := insideConns[args[1]]
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return "", err
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		all, err := io.ReadAll(c)
		return string(all), err
	case "put": // NAME TEXT
		_, err := insideConns[args[1]].Write([]byte(args[2]))
		return "", err
	case "lookup": // NAME SERVER NETWORK
		r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, args[3], args[2])
		}}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		addrs, err := r.LookupNetIP(ctx, "ip4", args[1])
		if len(addrs) > 0 {
			return addrs[0].Unmap().String(), err
		}
		return "", err
	case "marked": // NAME ADDRESS: as the relay's packets
		d := net.Dialer{Timeout: 20 * time.Second, Control: func(_, _ string, c syscall.RawConn) (err error) {
			c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, egressMark) })
			return err
		}}
		c, err := d.Dial("tcp", args[2])
		insideConns[args[1]] = c
		return "", err
	case "flush": // the rules of the container
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		var b nftBatch
		b.add(unix.NFT_MSG_DELTABLE, 0, netlinkAttr(unix.NFTA_TABLE_NAME, zeroEnded("container")))
		return "", unix.Sendto(fd, b.close(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	case "reset": // NAME
		resetConn(insideConns[args[1]])
		return "", nil
	case "close":
		return "", insideConns[args[1]].Close()
	case "many": // COUNT ADDRESS: how many could be made
		n, _ := strconv.Atoi(args[1])
		for i := range n {
			c, err := net.Dial("tcp", args[2])
			if err != nil {
				return strconv.Itoa(i), err
			}
			insideConns["many"+strconv.Itoa(i)] = c
		}
		return args[1], nil
	case "closemany":
		for name, c := range insideConns {
			if strings.HasPrefix(name, "many") {
				c.Close()
				delete(insideConns, name)
			}
		}
		return "", nil
	case "pid":
		return strconv.Itoa(os.Getpid()), nil
	case "send": // BYTES ADDRESS: a stream out
		return insideStream(args[1], args[2], map[string]string{"send": "t", "take": "s"}[args[0]], func(c net.Conn, buf []byte) (int, error) { return c.Write(buf) })
	case "take": // BYTES ADDRESS: a stream in
		return insideStream(args[1], args[2], map[string]string{"send": "t", "take": "s"}[args[0]], func(c net.Conn, buf []byte) (int, error) { return c.Read(buf) })
	}
	return "", errors.ErrUnsupported
}

// insideFastOpen connects by sending.
func insideFastOpen(name string, to netip.AddrPort, text string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	if err := unix.Sendto(fd, []byte(text), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return err
	}
	insideConns[name], err = net.FileConn(f)
	return err
}

func insideRead(c net.Conn) (string, error) {
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// insideStream moves bytes for some time, and returns how many a second.
func insideStream(count, address, first string, move func(net.Conn, []byte) (int, error)) (string, error) {
	total, err := strconv.Atoi(count)
	if err != nil {
		return "", err
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	begin, buf := time.Now(), make([]byte, 256<<10)
	if _, err := c.Write([]byte(first)); err != nil {
		return "", err
	}
	for done := 0; done < total; {
		n, err := move(c, buf)
		if err != nil {
			return "", err
		}
		done += n
	}
	return strconv.FormatFloat(float64(total)/time.Since(begin).Seconds(), 'f', 0, 64), nil
}
