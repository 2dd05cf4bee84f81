// Hooks runs a command in a container and tells what hooks see of its life: functions of this program, and programs
// of the host, in the container's namespaces and outside of them.
//
//	go run ./examples/hooks cat /dev/shm/note
//
// The root is the host's own, copy-on-write, and there is no network but lo.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"example.com/container"
	"example.com/container/examples/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: hooks COMMAND [ARG]...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		return 2
	}
	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot
	// A function is called in this process, with what is known about the container.
	tell := func(when string) container.Hook {
		return container.Hook{Func: func(_ context.Context, s *container.ContainerState) error {
			_, err := fmt.Fprintf(os.Stderr, "%s: %s is %s\n", when, s.ID, s.Status)
			return err
		}}
	}
	// A program reads the same as JSON. It gets no variable but those given, and SIGKILL when its time is over; if it
	// fails, so does the start.
	program := func(script string) container.Hook {
		return container.Hook{
			Path:    "/bin/sh",
			Args:    []string{"sh", "-c", script},
			Env:     []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
			Timeout: 10 * time.Second,
		}
	}
	cfg.Hooks = &container.Hooks{
		CreateRuntime:   []container.Hook{tell("createRuntime"), program("test $(id -u) = " + fmt.Sprint(os.Getuid()))},
		CreateContainer: []container.Hook{program("grep -q creating && echo made by a hook >dev/shm/note")}, // in the root to be
		StartContainer:  []container.Hook{program("grep -q created && echo and one inside >>/dev/shm/note")},
		Poststart:       []container.Hook{tell("poststart")},
		Poststop:        []container.Hook{tell("poststop")},
	}
	return cli.Run("hooks", cfg, &container.Process{Args: flag.Args()})
}
