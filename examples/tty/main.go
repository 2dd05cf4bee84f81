// Tty runs a shell at a terminal of its own, on this machine's own files. What it changes is gone when
// it ends.
//
//	go run ./examples/tty
//	go run ./examples/tty vi /etc/motd
//
// Job control, full-screen programs and the window's size work as outside. Ctrl-P Ctrl-Q detaches from
// the terminal, and Enter attaches again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"example.com/container"
	"example.com/container/examples/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	keys := flag.String("detach-keys", "ctrl-p,ctrl-q", "`keys` that detach, with commas between; empty: none")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: tty [-detach-keys KEYS] [--] [COMMAND...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if !container.IsTerminal(os.Stdin) {
		return cli.Fail("tty", errors.New("standard input is no terminal; see the example sandbox"))
	}

	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot
	cfg.Hostname = "tty"
	cfg.DieWithParent = true
	cfg.StopSignal, cfg.StopTimeout = syscall.SIGHUP, time.Second
	stateDir, err := os.MkdirTemp(cli.RunDir(), "container-tty-")
	if err != nil {
		return cli.Fail("tty", err)
	}
	defer os.RemoveAll(stateDir)
	c, err := container.New(stateDir, "tty", cfg)
	if err != nil {
		return cli.Fail("tty", err)
	}
	defer c.Destroy()

	p := &container.Process{
		Args: flag.Args(), Env: []string{"TERM=" + os.Getenv("TERM")},
		Tty: true, Stdin: os.Stdin, Stdout: os.Stdout, DetachKeys: *keys,
	}
	if len(p.Args) == 0 {
		p.Args = []string{"/bin/sh"}
	}
	// The terminal's keys go to the container. What comes from elsewhere ends it, and restores the terminal.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGHUP, syscall.SIGTERM)
	defer stop()
	if err := c.Run(ctx, p); err != nil {
		return cli.Fail("tty", err)
	}
	for err = p.Wait(); errors.Is(err, container.ErrDetached); err = p.Wait() {
		fmt.Print("\ndetached; press Enter to attach again\n")
		fmt.Scanln()
		if err := p.Attach(ctx, os.Stdin, os.Stdout); err != nil && !errors.Is(err, container.ErrDetached) && !errors.Is(err, container.ErrNotRunning) {
			return cli.Fail("tty", err)
		}
	}
	if exit, ok := errors.AsType[*container.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		return cli.Fail("tty", err)
	}
	return 0
}
