//go:build linux

// Limits runs a command on this machine's own files with limits, and prints how it ended and what it has used.
//
//	go run ./examples/limits -memory 64m -cpus 0.5 -pids 20 -time 10s -- sh -c 'head -c 100m /dev/zero | tail | wc -c'
//
// The command's exit code is the program's. An ordinary user needs a session of systemd's, or a delegated cgroup.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"example.com/container"
	"example.com/container/examples/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	r := container.DefaultResources()
	flag.Func("memory", "`bytes` of memory, without swap: 64m", func(text string) error {
		n, err := strconv.ParseInt(strings.TrimSuffix(text, "m"), 10, 40)
		if strings.HasSuffix(text, "m") {
			n <<= 20
		}
		r.Memory = &container.MemoryResources{Max: &n, SwapMax: new(int64(0)), OOMGroup: new(true)}
		return err
	})
	flag.Func("cpus", "`number` of CPUs: 1.5", func(text string) error {
		n, err := strconv.ParseFloat(text, 64)
		r.CPU = &container.CPUResources{Quota: new(int64(n * 100000)), Period: 100000}
		return err
	})
	flag.Int64Var(r.Pids.Max, "pids", *r.Pids.Max, "`number` of processes and threads")
	limit := flag.Duration("time", 0, "`time` until it is killed (default: none)")
	flag.Parse()

	cfg := container.DefaultConfig()
	cfg.Root, cfg.Resources, cfg.DieWithParent = container.HostRoot, r, true
	p := &container.Process{Args: flag.Args(), Timeout: *limit, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	dir, err := os.MkdirTemp(cli.RunDir(), "container-limits-")
	if err != nil {
		return cli.Fail("limits", err)
	}
	defer os.RemoveAll(dir)
	c, err := container.New(dir, "limits-"+strconv.Itoa(os.Getpid()), cfg)
	if err != nil {
		return cli.Fail("limits", err)
	}
	defer c.Destroy()
	if err := c.Run(context.Background(), p); err != nil {
		return cli.Fail("limits", err)
	}
	err = c.Wait()
	code, verdict := 0, "exit"
	if exit, ok := errors.AsType[*container.ExitError](err); ok {
		code, verdict = exit.ExitCode(), fmt.Sprint(exit.Verdict())
	} else if err != nil {
		return cli.Fail("limits", err)
	}
	s, err := c.Stats()
	if err != nil {
		return cli.Fail("limits", err)
	}
	fmt.Fprintf(os.Stderr, "limits: %s, code %d; cpu %v, stood still %v", verdict, code, s.CPU.Usage, s.CPU.ThrottledTime)
	if s.Memory != nil {
		fmt.Fprintf(os.Stderr, "; memory at most %d KiB", s.Memory.Peak>>10)
	}
	if s.Pids != nil {
		fmt.Fprintf(os.Stderr, "; forks that failed %d", s.Pids.MaxEvents)
	}
	fmt.Fprintln(os.Stderr)
	return code
}
