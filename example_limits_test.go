//go:build linux

package container_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"example.com/container"
)

// limited starts a process in a container with limits.
func limited(p *container.Process) (c *container.Container, end func(), err error) {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		return nil, nil, err
	}
	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot
	cfg.Cgroup, cfg.StopTimeout = &container.CgroupConfig{}, -1
	if c, err = container.New(dir, "limited", cfg); err == nil {
		err = c.Run(context.Background(), p)
	}
	return c, func() { c.Destroy(); os.RemoveAll(dir) }, err
}

// What a program nobody trusts may use: half a gigabyte, a CPU and a half, 200 processes, and ten seconds.
func ExampleResources() {
	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot
	cfg.Resources = &container.Resources{
		Memory: &container.MemoryResources{Max: new(int64(512 << 20)), SwapMax: new(int64(0))},
		CPU:    &container.CPUResources{Quota: new(int64(150_000)), Period: 100_000},
		Pids:   &container.PidsResources{Max: new(int64(200))},
	}
	p := &container.Process{Args: []string{"make", "test"}, Timeout: 10 * time.Second}
	_, _ = cfg, p
}

// The reason of an end, in a word.
func ExampleExitError_Verdict() {
	p := &container.Process{Args: []string{"sleep", "1000"}, Timeout: 50 * time.Millisecond}
	c, end, err := limited(p)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer end()
	var exit *container.ExitError
	if err := c.Wait(); errors.As(err, &exit) {
		fmt.Println(exit.Verdict())
	}
	// timeout
}

func ExampleContainer_Pause() {
	ctx := context.Background()
	c, end, err := limited(&container.Process{Args: []string{"sleep", "1000"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer end()
	if err := c.Pause(ctx); err != nil {
		fmt.Println(err)
	}
	status, _ := c.Status()
	fmt.Println(status)
	err = c.Exec(ctx, &container.Process{Args: []string{"true"}})
	fmt.Println(errors.Is(err, container.ErrPaused))
	if err := c.Resume(ctx); err != nil {
		fmt.Println(err)
	}
	status, _ = c.Status()
	fmt.Println(status)
	// paused
	// true
	// running
}

func ExampleContainer_Stats() {
	c, end, err := limited(&container.Process{Args: []string{"sleep", "1000"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer end()
	s, err := c.Stats()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("it has used the CPU:", s.CPU.Usage > 0)
	for _, i := range s.Interfaces {
		fmt.Println(i.Name)
	}
	// it has used the CPU: true
	// lo
}

// Limits of a container that runs.
func ExampleContainer_Set() {
	c, err := container.Load("/run/demo", "demo")
	if err != nil {
		fmt.Println(err)
		return
	}
	err = c.Set(&container.Resources{Memory: &container.MemoryResources{High: new(int64(256 << 20))}})
	var e *container.Error
	if errors.As(err, &e) && e.Remedy != "" {
		fmt.Println("do this:", e.Remedy)
	}
}

// What happens to a container, until it ends.
func ExampleContainer_Events() {
	c, err := container.Load("/run/demo", "demo")
	if err != nil {
		fmt.Println(err)
		return
	}
	for e, err := range c.Events(context.Background()) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e.Time.Format(time.TimeOnly), e.Type, e.Count)
	}
}

// A cgroup for several containers, with a limit for all of them together.
func ExampleNewCgroup() {
	group, err := container.NewCgroup("/builds")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer group.Delete()
	if err := group.Apply(&container.Resources{Memory: &container.MemoryResources{Max: new(int64(8 << 30))}}); err != nil {
		fmt.Println(err)
		return
	}
	cfg := container.DefaultConfig()
	cfg.Cgroup = &container.CgroupConfig{Parent: group.Path()}
}

// The devices that every program needs, and KVM.
func ExampleDefaultDeviceRules() {
	kvm := container.DeviceRule{Allow: true, Type: 'c', Major: new(uint32(10)), Minor: new(uint32(232)), Access: "rw"}
	cfg := container.DefaultConfig()
	cfg.Resources = &container.Resources{Devices: append(container.DefaultDeviceRules(), kvm)}
	cfg.Devices = append(container.DefaultDevices(), container.Device{Path: "/dev/kvm", Type: 'c', Major: 10, Minor: 232})
}
