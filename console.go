package container

import (
	"bytes"
	"errors"
	"strings"
)

// This file describes the terminal of a process: its size, the keys that detach from it. Nothing here
// touches the kernel. How the terminal is made is in console_plan.go, how the caller's side of it is
// copied in console_copy.go.

// ErrDetached is returned by Process.Wait and Process.Attach when the user has typed
// Process.DetachKeys. The process goes on.
var ErrDetached = errors.New("detached from the terminal")

// ConsoleSize is the size of a terminal in characters. Zero: see Process.ConsoleSize.
type ConsoleSize struct {
	Width, Height uint16
}

// checkConsole checks the fields that are about the terminal.
func checkConsole(p *Process) []error {
	var errs fieldErrors
	if (p.ConsoleSize.Width == 0) != (p.ConsoleSize.Height == 0) {
		errs.addf("ConsoleSize", "%d by %d characters are none; set both Width and Height, or neither", p.ConsoleSize.Width, p.ConsoleSize.Height)
	}
	if _, err := parseDetachKeys(p.DetachKeys); err != nil {
		errs.add(err)
	}
	if !p.Tty {
		const needs = "needs Tty"
		if p.ConsoleSize != (ConsoleSize{}) {
			errs.addf("ConsoleSize", needs)
		}
		if p.ConsoleSocket != nil {
			errs.addf("ConsoleSocket", needs)
		}
		if p.DetachKeys != "" {
			errs.addf("DetachKeys", needs)
		}
		return errs
	}
	if p.Stderr != nil && !sameWriter(p.Stdout, p.Stderr) {
		errs.addf("Stderr", "is not Stdout; with Tty there is one stream: leave Stderr nil")
	}
	if p.ConsoleSocket != nil && (p.Stdin != nil || p.Stdout != nil || p.DetachKeys != "") {
		errs.addf("ConsoleSocket", "takes the terminal, so there is nothing to copy; leave Stdin, Stdout and DetachKeys empty")
	}
	return errs
}

// parseDetachKeys reads keys with commas between them, each a character of ASCII or "ctrl-" and one
// of a to z and @ [ \ ] ^ _, as docker and podman write them: "ctrl-p,ctrl-q".
func parseDetachKeys(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	var keys []byte
	for key := range strings.SplitSeq(text, ",") {
		c, ctrl := strings.CutPrefix(key, "ctrl-")
		switch {
		case ctrl && len(c) == 1 && (c[0] >= 'a' && c[0] <= 'z'):
			keys = append(keys, c[0]-'a'+1)
		case ctrl && len(c) == 1 && strings.Contains(`@[\]^_`, c):
			keys = append(keys, c[0]-'@')
		case !ctrl && len(c) == 1 && c[0] > ' ' && c[0] < 0x7f:
			keys = append(keys, c[0])
		default:
			return nil, fieldErrorf("DetachKeys", "%.100q: %.20q is no key; use a character or ctrl-a to ctrl-z, ctrl-@ [ \\ ] ^ _, with commas between: \"ctrl-p,ctrl-q\"", text, key)
		}
	}
	return keys, nil
}

// A keyWatch finds the keys in what is typed. The zero keyWatch finds nothing.
type keyWatch struct {
	keys []byte
	held []byte // the beginning of keys, which may become all of them
}

// pass returns what the process shall get of what was typed, and whether the keys have been typed.
// What might be the beginning of them is held back; what follows them is dropped.
func (w *keyWatch) pass(typed []byte) (out []byte, found bool) {
	if len(w.keys) == 0 {
		return typed, false
	}
	for _, c := range typed {
		w.held = append(w.held, c)
		for !bytes.HasPrefix(w.keys, w.held) {
			out = append(out, w.held[0])
			w.held = w.held[1:]
		}
		if len(w.held) == len(w.keys) {
			w.held = nil
			return out, true
		}
	}
	return out, false
}
