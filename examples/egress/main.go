// Egress runs a command on this machine's own files and asks, for each name that it looks up and each connection that it makes, whether it
// may.
//
//	go run ./examples/egress -- curl -s https://example.com
//
// Questions are answered at the terminal, once for each name or address: y, n, or a for all that comes. Without a terminal, or with -n, the answer is no, and what
// was asked for is printed: a list of what a program wants.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"

	"example.com/container"
	"example.com/container/examples/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	no := flag.Bool("n", false, "answer no to all, and print what was asked for")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: egress [-n] [--] COMMAND...")
		return 2
	}
	g := &guard{answers: map[string]bool{}}
	if terminal, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil && !*no {
		defer terminal.Close()
		g.terminal, g.lines = terminal, bufio.NewReader(terminal)
	}
	cfg := container.DefaultConfig()
	cfg.Root, cfg.Hostname, cfg.DieWithParent = container.HostRoot, "egress", true
	cfg.Network = &container.NetworkConfig{Mode: container.NetworkModeEgress, Egress: g.decide, OnEgress: func(e container.EgressEvent) {
		if e.Err != nil {
			fmt.Fprintln(os.Stderr, "egress:", e.Err)
		}
	}}
	return cli.Run("egress", cfg, &container.Process{Args: flag.Args(), InheritEnv: true})
}

// A guard asks a person.
type guard struct {
	terminal *os.File // nil: nobody is there
	lines    *bufio.Reader

	mu      sync.Mutex // one question at a time
	answers map[string]bool
	all     bool
}

// decide is the policy. It is called in a goroutine of each connection.
func (g *guard) decide(_ context.Context, r container.EgressRequest) (container.EgressDecision, error) {
	what := r.Network + " " + r.Addr.String()
	subject := r.Addr.Addr().String() // what an answer is about
	if len(r.Names) > 0 {
		what, subject = r.Network+" "+r.Names[0], r.Names[0]
		if r.Network != "dns" {
			what += " (" + r.Addr.String() + ")"
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	allow, known := g.answers[subject]
	if !known {
		allow = g.all || g.ask(what)
		g.answers[subject] = allow
	}
	return container.EgressDecision{Allow: allow}, nil
}

// ask asks.
func (g *guard) ask(what string) bool {
	if g.terminal == nil {
		fmt.Fprintln(os.Stderr, "egress: asked for", what)
		return false
	}
	fmt.Fprintf(g.terminal, "egress: allow %s? [y/n/a] ", what)
	line, err := g.lines.ReadString('\n')
	if err != nil {
		return false
	}
	g.all = strings.HasPrefix(line, "a")
	return g.all || strings.HasPrefix(line, "y")
}
