//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// This file has the client and the server that all contenders of the rows about connections run: the same program, with another way between
// the two. The client takes orders by its standard input, and measures.

const (
	clientFlag = "-client-only" // ADDRESS
	serverFlag = "-server-only" // ADDRESS
)

const (
	// manyConnections are made one after the other, each to send a byte and to get one.
	manyConnections = 20
	// streamBytes are sent over one connection.
	streamBytes = 64 << 20
)

// trafficClient does one thing for each line: "connect" or "stream". It answers with how long that has taken, in nanoseconds.
func trafficClient(address, _ string) error {
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		began := time.Now()
		var err error
		switch lines.Text() {
		case "connect":
			for range manyConnections {
				err = errors.Join(err, exchange(address, 0))
			}
		case "stream":
			err = exchange(address, streamBytes)
		default:
			return errors.New("unknown order: " + lines.Text())
		}
		if err != nil {
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", "; "))
			continue
		}
		fmt.Println(time.Since(began).Nanoseconds())
	}
	return nil
}

// exchange sends a byte and so many more, and waits for one.
func exchange(address string, more int) error {
	conn, err := net.DialTimeout("tcp", address, 20*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	if more == 0 {
		_, err = conn.Write([]byte("e"))
	} else {
		_, err = conn.Write([]byte("t"))
		for buf := make([]byte, 256<<10); err == nil && more > 0; more -= len(buf) {
			_, err = conn.Write(buf)
		}
		err = errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}
	if err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// trafficServer answers a byte, or what comes after it as well when it has ended.
func trafficServer(address, _ string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() { // until standard input ends
		io.Copy(io.Discard, os.Stdin)
		l.Close()
	}()
	fmt.Println("ready")
	for {
		conn, err := l.Accept()
		if err != nil {
			return nil
		}
		go func() {
			defer conn.Close()
			first := make([]byte, 1)
			_, err := io.ReadFull(conn, first)
			buf := make([]byte, 256<<10)
			for err == nil && first[0] == 't' {
				_, err = conn.Read(buf)
			}
			if err == nil || err == io.EOF {
				conn.Write(first)
			}
		}()
	}
}

// A talker is a process with a client or a server in it.
type talker struct {
	in  io.WriteCloser
	out *bufio.Reader
	pid int
}

// talk starts a program, and waits until the client or server in it is ready. The field ends it.
func talk(f *field, name string, args ...string) (*talker, error) {
	cmd := exec.Command(name, args...)
	var said strings.Builder
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		in.Close()
		return nil, err
	}
	f.end = append(f.end, func() {
		in.Close() // it ends
		timer := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		timer.Stop()
	})
	t := &talker{in: in, out: bufio.NewReader(out), pid: cmd.Process.Pid}
	if line, err := t.out.ReadString('\n'); line != "ready\n" {
		cmd.Process.Kill()
		cmd.Wait()
		why := strings.TrimSpace(said.String())
		return nil, fmt.Errorf("%q, %v: %s", line, err, why[strings.LastIndex(why, "\n")+1:])
	}
	return t, nil
}

// contender is a client that gets an order in each round.
func (t *talker) contender(order string) contender {
	return contender{once: func() (sample, error) {
		if _, err := fmt.Fprintln(t.in, order); err != nil {
			return sample{}, err
		}
		line, err := t.out.ReadString('\n')
		if err != nil {
			return sample{}, err
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return sample{}, errors.New(strings.TrimSpace(line))
		}
		return sample{wall: time.Duration(ns)}, nil
	}}
}
