// Detached starts containers that live on without it, and tells about them later.
//
//	go run ./examples/detached run demo sleep 3
//	go run ./examples/detached list
//	go run ./examples/detached wait demo     exits as the program did
//	go run ./examples/detached destroy demo
//
// The root is the host's own, copy-on-write, and there is no network but lo. Nothing of this program
// stays: the container's parent is a process of a few kilobytes that writes down how it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"example.com/container"
	"example.com/container/examples/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: detached run ID COMMAND [ARG]... | list | wait ID | destroy ID")
		flag.PrintDefaults()
	}
	stateDir := flag.String("state", filepath.Join(cli.RunDir(), fmt.Sprintf("detached-%d", os.Getuid())), "`directory` of the containers")
	flag.Parse()
	verb, id, args := flag.Arg(0), flag.Arg(1), flag.Args()
	var err error
	switch {
	case verb == "run" && len(args) > 2:
		err = start(*stateDir, id, args[2:])
	case verb == "list" && len(args) == 1:
		err = list(*stateDir)
	case verb == "wait" && len(args) == 2:
		err = with(*stateDir, id, (*container.Container).Wait)
	case verb == "destroy" && len(args) == 2:
		err = with(*stateDir, id, (*container.Container).Destroy)
	default:
		flag.Usage()
		return 2
	}
	var exit *container.ExitError
	if errors.As(err, &exit) {
		return exit.Code
	}
	if err != nil {
		return cli.Fail("detached", err)
	}
	return 0
}

func start(stateDir, id string, args []string) error {
	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot
	cfg.Detached = true
	c, err := container.New(stateDir, id, cfg)
	if err != nil {
		return err
	}
	if err := c.Run(context.Background(), &container.Process{Args: args}); err != nil {
		return errors.Join(err, c.Destroy())
	}
	fmt.Println(c.Pid())
	return nil
}

func list(stateDir string) error {
	states, err := container.NewStateManager(stateDir).ListStates()
	for _, s := range states {
		fmt.Printf("%s %s pid=%d exit=%d\n", s.ID, s.Status, s.Pid, s.ExitCode)
	}
	return err
}

// with does something to a container.
func with(stateDir, id string, do func(*container.Container) error) error {
	c, err := container.Load(stateDir, id)
	if err != nil {
		return err
	}
	return do(c)
}
