//go:build linux

// Boot runs a command in a guest of internal/guest and exits as the command does:
//
//	go run ./internal/guest/boot -kernel 6.12 -systemd -files dir 'as tester ./x.test -test.v'
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"example.com/container/internal/guest"
)

func main() {
	g := guest.Guest{Output: os.Stdout}
	flag.StringVar(&g.Kernel, "kernel", guest.Kernels()[0], "`series` of the kernel: one of "+fmt.Sprint(guest.Kernels()))
	flag.BoolVar(&g.Systemd, "systemd", false, "systemd is process 1")
	flag.IntVar(&g.Memory, "memory", 0, "`size` of the memory in MiB")
	flag.StringVar(&g.Append, "append", "", "`words` for the kernel's command line")
	flag.StringVar(&g.Files, "files", "", "`directory` that is copied to /vm, where the command runs")
	flag.StringVar(&g.Out, "out", "", "`directory` for what the command leaves in /vm/out")
	limit := flag.Duration("limit", 0, "end it after this `time`; 0 is never")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: boot [options] command")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	g.Command = flag.Arg(0)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	if *limit > 0 {
		ctx, stop = context.WithTimeout(ctx, *limit)
	}
	status, err := g.Run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 125
	}
	os.Exit(status)
}
