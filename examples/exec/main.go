// Exec runs a command in a container that another program has started.
//
//	go run ./examples/detached run demo sleep 1000
//	go run ./examples/exec demo ps
//
// It exits as the command does; 127 if there is no such program in the container, 126 if it cannot be
// executed, 125 for what else goes wrong. The end of this program is that of the command.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"example.com/container"
	"example.com/container/examples/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	var env cli.Strings
	stateDir := flag.String("state", filepath.Join(cli.RunDir(), fmt.Sprintf("detached-%d", os.Getuid())), "`directory` of the containers")
	user := flag.String("u", "", "`user[:group]` to run as (default: root of the container)")
	workDir := flag.String("w", "", "working `directory` (default: /)")
	flag.Var(&env, "e", "environment variable `KEY=VALUE`; can be given several times")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: exec [FLAG]... ID COMMAND [ARG]...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() < 2 {
		flag.Usage()
		return 125
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()

	c, err := container.Load(*stateDir, flag.Arg(0))
	if err != nil {
		return cli.Fail("exec", err)
	}
	p := &container.Process{
		Args: flag.Args()[1:], Env: env, Cwd: *workDir, User: *user,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}
	if err := c.Exec(ctx, p); err != nil {
		return cli.Fail("exec", err)
	}
	err = p.Wait()
	if exit, ok := errors.AsType[*container.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		return cli.Fail("exec", err)
	}
	return 0
}
