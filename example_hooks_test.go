package container_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"example.com/container"
)

func ExampleHook() {
	stateDir := must(os.MkdirTemp("", "example-"))
	defer os.RemoveAll(stateDir)
	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot
	cfg.Hooks = &container.Hooks{
		// A program of the host, in the container's namespaces; the working directory is the root to be.
		CreateContainer: []container.Hook{{
			Path:    "/bin/sh",
			Args:    []string{"sh", "-c", "echo made by a hook >dev/shm/note"},
			Timeout: 10 * time.Second,
		}},
	}
	c := must(container.New(stateDir, "demo", cfg))
	defer c.Destroy()
	p := &container.Process{Args: []string{"cat", "/dev/shm/note"}, Stdout: os.Stdout}
	if err := c.Run(context.Background(), p); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Wait())
	// made by a hook
	// <nil>
}

func ExampleHook_func() {
	stateDir := must(os.MkdirTemp("", "example-"))
	defer os.RemoveAll(stateDir)
	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot
	noNetwork := errors.New("no network for it")
	cfg.Hooks = &container.Hooks{
		CreateRuntime: []container.Hook{{Func: func(ctx context.Context, s *container.ContainerState) error {
			fmt.Println(s.ID, s.Status, s.Pid > 0)
			return noNetwork
		}}},
	}
	c := must(container.New(stateDir, "demo", cfg))
	defer c.Destroy()
	err := c.Run(context.Background(), &container.Process{Args: []string{"true"}})
	fmt.Println(errors.Is(err, noNetwork))
	fmt.Println(c.Status())
	// demo creating true
	// true
	// creating <nil>
}
