//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

// patience is how long things may take that come soon, on a machine that has much to do.
const patience = time.Minute

// A window is a terminal of tmux with a shell in it, whose screen can be read.
type window struct {
	t      *testing.T
	socket string
	env    []string
}

// newWindow starts a server of its own, which ends with the test.
func newWindow(t *testing.T, width, height int) *window {
	t.Helper()
	testenv.Need(t, testenv.UserNS, testenv.Overlay, testenv.Tmux)
	program := clitest.Command(t)
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &window{t: t, socket: filepath.Join(dir, "s"), env: append(program.Env, "PROGRAM="+exe, "DIR="+dir, "ENV=", "LC_ALL=C.UTF-8")}
	server := exec.Command("tmux", "-S", w.socket, "-f", os.DevNull, "-D")
	server.Env = w.env
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.tmux("kill-server")
		timer := time.AfterFunc(30*time.Second, func() { server.Process.Kill() })
		defer timer.Stop()
		server.Wait()
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", w.socket); err == nil { // a client that nobody answers would start another server
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("tmux does not start")
		}
	}
	w.tmux("new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height), "exec /bin/sh")
	w.prompt("outer$")
	return w
}

func (w *window) tmux(args ...string) string {
	w.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-S", w.socket}, args...)...)
	cmd.Env = w.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("tmux %q: %v: %s", args, err, out)
	}
	return string(out)
}

// keys types: names such as Enter and C-c are keys, anything else is text.
func (w *window) keys(keys ...string) {
	w.t.Helper()
	w.tmux(append([]string{"send-keys"}, keys...)...)
}

// line types a line.
func (w *window) line(text string) {
	w.t.Helper()
	w.tmux("send-keys", "-l", text)
	w.keys("Enter")
}

// lines is what is on the screen.
func (w *window) lines() []string {
	w.t.Helper()
	return strings.Split(strings.TrimSuffix(w.tmux("capture-pane", "-p"), "\n"), "\n")
}

// awaitThat waits until the screen is as it should be.
func (w *window) awaitThat(what string, is func(lines []string) bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		lines := w.lines()
		if is(lines) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("no %s on the screen:\n%s", what, strings.Join(lines, "\n"))
		}
	}
}

// unprompted is a line without the prompt of a shell that printed it late, when what it asks for had been typed already.
func unprompted(line string) string {
	return strings.TrimPrefix(strings.TrimPrefix(line, "outer$ "), "tty$ ")
}

// await waits until a line begins with the text.
func (w *window) await(text string) {
	w.t.Helper()
	w.awaitThat(fmt.Sprintf("%q", text), func(lines []string) bool {
		for _, line := range lines {
			if strings.HasPrefix(line, text) || strings.HasPrefix(unprompted(line), text) {
				return true
			}
		}
		return false
	})
}

// prompt waits for a shell's first prompt and replaces it.
func (w *window) prompt(text string) {
	w.t.Helper()
	w.awaitThat("shell", func(lines []string) bool {
		i := slices.Index(lines, "")
		return i > 0 && (lines[i-1] == "#" || lines[i-1] == "$")
	})
	w.line("PS1='" + text + " '")
	w.await(text)
}

// clear clears the screen and waits for the shell's prompt.
func (w *window) clear(prompt string) {
	w.t.Helper()
	w.line("clear")
	w.awaitThat("prompt alone", func(lines []string) bool {
		return strings.TrimRight(strings.Join(lines, ""), " ") == strings.TrimRight(prompt, " ")
	})
}

func (w *window) resize(width, height int) {
	w.t.Helper()
	w.tmux("resize-window", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height))
}

// inside starts the program, and checks at the end that the shell outside is as it was before.
func (w *window) inside(f func()) {
	w.t.Helper()
	w.line("stty -g >$DIR/before")
	w.clear("outer$")
	w.line("$PROGRAM; echo ended with $?")
	w.prompt("tty$")
	f()
	w.line("exit 3")
	w.awaitThat("end", func(lines []string) bool { // what was typed before the last prompt was there stands above it
		return slices.ContainsFunc(lines, func(line string) bool { return unprompted(line) == "ended with 3" })
	})
	w.line("stty -g >$DIR/after; cmp $DIR/before $DIR/after && echo 'same modes'")
	w.await("same modes")
	w.line("cat; echo done")
	w.line("typed in cooked moxx\x7f\x7fde") // the terminal itself deletes
	w.awaitThat("line twice", func(lines []string) bool {
		n := 0
		for _, line := range lines {
			if unprompted(line) == "typed in cooked mode" {
				n++
			}
		}
		return n == 2
	})
	w.keys("C-d")
	w.await("done")
}

func TestShell(t *testing.T) {
	w := newWindow(t, 80, 24)
	w.inside(func() {
		w.line("tty; hostname; stty size; id -u")
		for _, text := range []string{"/dev/pts/0", "tty", "24 80", "0"} {
			w.await(text)
		}
		w.resize(90, 30)
		w.clear("tty$")
		w.line("stty size")
		w.await("30 90")
	})
}

func TestJobControl(t *testing.T) {
	w := newWindow(t, 80, 24)
	sleep := fmt.Sprint("sleep ", 1_000_000+os.Getpid()) // which nobody else runs on this machine
	w.inside(func() {
		w.line("sleep 200 &")
		w.line(sleep)
		w.awaitForeground(sleep)
		w.keys("C-z")
		w.awaitThat("stopped job", func(lines []string) bool { return strings.Contains(strings.Join(lines, "\n"), "^Z[2] + Stopped") })
		w.clear("tty$")
		w.line("jobs")
		w.await("[2] + Stopped")
		w.await("[1] - Running")
		w.line("fg")
		w.awaitThat("job in the foreground", func(lines []string) bool {
			for i := range lines {
				lines[i] = unprompted(lines[i])
			}
			return strings.Contains(strings.Join(lines, "\n"), "fg\n"+sleep)
		})
		w.awaitForeground(sleep) // the shell says so first
		w.keys("C-c")
		w.clear("tty$")
		w.line("jobs; echo alive $((6*7))") // the job in the background and the shell
		w.await("[1] + Running")
		w.await("alive 42")
		w.line("kill %1")
	})
}

// awaitForeground waits until the command runs in the container and gets the keys, which is a moment after it was typed.
func (w *window) awaitForeground(command string) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, file := range list {
			text, _ := os.ReadFile(file)
			if strings.TrimSuffix(strings.ReplaceAll(string(text), "\x00", " "), " ") != command {
				continue
			}
			// See proc_pid_stat(5): its state, its process group, and the one in the foreground of its terminal.
			stat, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "stat"))
			f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
			if len(f) > 5 && f[0] == "S" && f[2] == f[5] {
				return
			}
		}
	}
	w.t.Fatalf("%s does not run in the foreground", command)
}

// An editor draws the whole screen, and anew when the window's size changes.
func TestEditor(t *testing.T) {
	testenv.Need(t, testenv.Program("vim.tiny", "vim-tiny"))
	w := newWindow(t, 80, 24)
	w.inside(func() {
		w.line("vim.tiny -u NONE --cmd 'set nocompatible' /tmp/new-file")
		size := func(width, height int) {
			t.Helper()
			w.awaitThat("screen of the editor", func(lines []string) bool {
				return len(lines) == height && lines[1] == "~" && lines[height-2] == "~" && !strings.HasPrefix(lines[height-1], "~")
			})
			// The window has its new size a moment before the editor is told.
			want, got := fmt.Sprintf("  columns=%d\n  lines=%d\n", width, height), ""
			for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
				w.keys("Escape")
				w.line(":set columns? lines?")
				w.awaitThat("answer of the editor", func(lines []string) bool {
					got = strings.Join(lines, "\n") + "\n"
					return strings.Contains(got, "  lines=")
				})
				w.keys("Enter")
				if strings.Contains(got, want) {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
			t.Fatalf("the editor shows %s, want %s", got, want)
		}
		size(80, 24)
		w.resize(100, 35)
		size(100, 35)
		w.resize(40, 12)
		size(40, 12)
		w.keys("Escape")
		w.tmux("send-keys", "-l", "ihello")
		w.keys("Escape")
		w.line(":wq")
		w.await("tty$")
		w.clear("tty$")
		w.line("cat /tmp/new-file; rm /tmp/new-file")
		w.await("hello")
	})
}

func TestPager(t *testing.T) {
	testenv.Need(t, testenv.Program("less", "less"))
	w := newWindow(t, 80, 24)
	w.inside(func() {
		w.line("seq 1 500 | less -M -")
		page := func(height int) {
			t.Helper()
			w.awaitThat(fmt.Sprintf("page of %d lines", height), func(lines []string) bool {
				return len(lines) == height && lines[0] == "1" && lines[height-2] == fmt.Sprint(height-1) && strings.HasPrefix(lines[height-1], fmt.Sprintf("lines 1-%d", height-1))
			})
		}
		page(24)
		w.resize(100, 40)
		page(40)
		w.resize(60, 10)
		page(10)
		w.keys("G")
		w.await("500")
		w.keys("q")
		w.await("tty$")
	})
}

func TestDetach(t *testing.T) {
	w := newWindow(t, 80, 24)
	w.inside(func() {
		w.line("x=kept")
		for range 2 {
			w.keys("C-p", "C-q")
			w.await("detached; press Enter")
			w.keys("Enter")
			w.clear("tty$")
			w.line("echo still $x")
			w.await("still kept")
		}
	})
}

// A signal from elsewhere ends the container, and leaves a terminal that can be used.
func TestHangup(t *testing.T) {
	for _, sig := range []string{"TERM", "HUP"} {
		w := newWindow(t, 80, 24)
		w.line("stty -g >$DIR/before")
		w.clear("outer$")
		w.line("sh -c 'echo $$ >$DIR/pid; exec $PROGRAM'; echo ended with $?")
		w.prompt("tty$")
		pid, err := os.ReadFile(filepath.Join(filepath.Dir(w.socket), "pid"))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("kill", "-"+sig, strings.TrimSpace(string(pid))).CombinedOutput(); err != nil {
			t.Fatalf("%v, %s", err, out)
		}
		w.awaitThat("end", func(lines []string) bool { return strings.Contains(strings.Join(lines, ""), "ended with 137") }) // a shell that is process 1 does not mind the signal
		w.line("stty -g >$DIR/after; cmp $DIR/before $DIR/after && echo 'same modes'")
		w.await("same modes")
	}
}

func TestNoTerminal(t *testing.T) {
	if out, errs, code := clitest.Run(t, "true"); code != 125 || !strings.Contains(errs, "no terminal") {
		t.Error(out, errs, code)
	}
}
