//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"example.com/container/internal/launch"
	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file tests the terminals of further processes in a container.

func TestConsoleExec(t *testing.T) {
	const script = `tty; for i in 0 1 2; do readlink /proc/self/fd/$i; done; ls /proc/self/fd | wc -l
		echo through /dev/tty >/dev/tty; stty size; stat -c '%a %u %t:%T' $(tty)
		read -r all </proc/self/stat; set -- ${all##*)}; [ $4 = $$ ] && echo "session leader, terminal $5"`
	execConfigs(t, func(t *testing.T, cfg Config) {
		leak.Check(t)
		defer lifeForgetUserNamespaces()
		s := newSeat(t)
		c := lifeStart(t, cfg, s.at("tty; sleep 1000"))
		if !cfg.Namespaces.NewMnt {
			s.await(t, "/dev/pts/")
			out, err := execIn(t, c.Exec, &Process{Args: []string{"sh", "-c", "tty | sed 's/[0-9]*$/N/'; echo works >/dev/tty"}, Tty: true})
			if out != "/dev/pts/N\r\nworks\r" || err != nil {
				t.Errorf("%q, %v", out, err)
			}
			return
		}
		s.await(t, "/dev/pts/0\r\n")
		for range 2 { // the number is free again
			out, err := execIn(t, c.Exec, &Process{Args: []string{"sh", "-c", script}, Tty: true, ConsoleSize: ConsoleSize{70, 20}})
			want := "/dev/pts/1\n/dev/pts/1\n/dev/pts/1\n/dev/pts/1\n4\nthrough /dev/tty\n20 70\n620 0 88:1\nsession leader, terminal 34817\n"
			if out = strings.ReplaceAll(out, "\r", ""); out != strings.TrimSuffix(want, "\n") || err != nil {
				t.Errorf("%v, got\n%s\nwant\n%s", err, out, want)
			}
		}
		before := s.modes(t)
		p := &Process{Args: []string{"no-such-program"}, Tty: true, Stdin: s.seat, Stdout: s.seat}
		if err := c.Exec(context.Background(), p); !errors.Is(err, ErrNotFound) || s.modes(t) != before {
			t.Errorf("%v", err)
		}
		c.Signal(unix.SIGKILL)
		lifeWait(t, c.Wait)
	})
}

// The terminals of two processes are two: each has the keys and the size of its own.
func TestConsoleExecAtASeat(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, testConfig(t))
	var seats [2]*consoleSeat
	var list [2]*Process
	for i := range seats {
		seats[i] = newSeat(t)
		seats[i].resize(t, uint16(60+i), 20)
		list[i] = seats[i].at("trap 'echo interrupted; exit 5' INT; stty size; echo ready; while :; do sleep 0.01; done")
		if err := c.Exec(context.Background(), list[i]); err != nil {
			t.Fatal(err)
		}
		seats[i].await(t, "ready")
	}
	seats[1].typeKeys(t, "\x03")
	if exit, ok := errors.AsType[*ExitError](lifeWait(t, list[1].Wait)); !ok || exit.Code != 5 {
		t.Error(exit)
	}
	if !seats[0].isRaw(t) || seats[1].isRaw(t) {
		t.Error("the wrong terminal is raw")
	}
	seats[0].typeKeys(t, "\x03")
	lifeWait(t, list[0].Wait)
}

// Every call of an exec at a terminal fails once: nothing is left, and the container runs on.
func TestConsoleExecFaults(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, testConfig(t))
	target, err := c.target()
	if err != nil {
		t.Fatal(err)
	}
	pl, err := newJoinPlan(&c.cfg, &Process{Args: []string{"true"}, Tty: true}, stdioFiles{}, target)
	target.close()
	if err != nil {
		t.Fatal(err)
	}
	list := lines(pl.String())
	reported, tolerated := 0, 0
	for op := 2; op < pl.Len(); op++ {
		if strings.Contains(list[op], "= sub(") || pl.StepOf(op).Name == "fork" && strings.HasPrefix(list[op], "write(") {
			continue // arithmetic does not fail, nor does writing as long as we are here to read it
		}
		c.fault = &launch.Fault{Op: op, Errno: injected}
		_, err := execIn(t, c.Exec, &Process{Args: []string{"true"}, Tty: true})
		var e *Error
		switch {
		case err == nil:
			tolerated++
		case errors.As(err, &e) && e.ID != "":
			reported++
		default:
			t.Errorf("call %d: %v", op, err)
		}
	}
	c.fault = nil
	if t.Logf("%d failures reported, %d tolerated", reported, tolerated); reported < 40 {
		t.Error("too few")
	}
	if out := execSh(t, c, Process{}, "echo fine"); out != "fine" {
		t.Errorf("%q", out)
	}
}

// A container whose root may mount puts something else in the place of /dev/pts: an exec opens it in the
// belief that it is a terminal, and waits for ever, acts on a device or shows the caller a file.
func TestConsoleExecHostilePts(t *testing.T) {
	for name, row := range map[string]struct {
		script string
		errno  unix.Errno // 0: it works
	}{
		"FIFO":       {"mount -t tmpfs x /dev/pts; mkfifo /dev/pts/ptmx", unix.ENODEV},
		"file":       {"mount -t tmpfs x /dev/pts; echo x >/dev/pts/ptmx", unix.ENODEV},
		"link":       {"umount /dev/pts; rmdir /dev/pts; ln -s /proc/self /dev/pts", unix.ELOOP},
		"dev link":   {"mount -t tmpfs x /mnt; mkdir -p /mnt/d/pts; umount -l /dev; mount -t tmpfs y /run; ln -s /proc/self/fd /run/pts; mount --bind /run /dev", unix.ELOOP},
		"over ptmx":  {"mkfifo /tmp/f; mount --bind /tmp/f /dev/pts/ptmx", unix.EXDEV},
		"nothing":    {"umount /dev/pts", unix.ENODEV},
		"own devpts": {"mount -t devpts -o newinstance,ptmxmode=666 x /dev/pts", 0},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cfg := testConfig(t)
			all := AllCapabilities()
			cfg.Capabilities = &Capabilities{Bounding: all, Permitted: all, Effective: all}
			cfg.Mounts = append(cfg.Mounts, Mount{Type: "tmpfs", Target: "/tmp"}, Mount{Type: "tmpfs", Target: "/mnt"}, Mount{Type: "tmpfs", Target: "/run"})
			r, w := pipe(t)
			c := lifeStart(t, cfg, &Process{Args: []string{"sh", "-c", row.script + "; echo ready; exec sleep 1000"}, Stdout: w, Stderr: w})
			w.Close()
			if line := readLine(t, r); line != "ready" {
				t.Skipf("the attack is not possible: %s", line)
			}
			var out bytes.Buffer
			err := lifeWait(t, func() error {
				p := &Process{Args: []string{"tty"}, Tty: true, Stdout: &out}
				if err := c.Exec(context.Background(), p); err != nil {
					return err
				}
				return p.Wait()
			})
			if row.errno == 0 && (err != nil || out.String() != "/dev/pts/0\r\n") || row.errno != 0 && !errors.Is(err, row.errno) {
				t.Errorf("%q, %v", out.String(), err)
			}
		})
	}
}
