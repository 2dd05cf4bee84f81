//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"example.com/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file changes containers that run: update, pause, resume.

// load loads a container that must have a process.
func (a *app) load(id string) (*container.Container, error) {
	c, err := container.Load(a.root, id)
	if err != nil {
		return nil, err
	}
	status, err := c.Status()
	if err == nil && status == container.StatusStopped {
		err = errors.New("container not running")
	}
	return c, err
}

func pauseCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	return func(args []string) (int, error) {
		c, err := a.load(args[0])
		if err != nil {
			return 1, err
		}
		return code(c.Pause(context.Background()))
	}
}

func resumeCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	return func(args []string) (int, error) {
		c, err := a.load(args[0])
		if err != nil {
			return 1, err
		}
		switch status, err := c.Status(); {
		case err != nil:
			return 1, err
		case status != container.StatusPaused:
			return 1, errors.New("container not paused")
		}
		return code(c.Resume(context.Background()))
	}
}

// code is the exit code for an error.
func code(err error) (int, error) {
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// updateFlags are the flags of update; those that are not given change nothing.
var updateFlags = []struct {
	name, about string
	set         func(r *specs.LinuxResources, text string) error
}{
	{"blkio-weight", "`weight` of block devices, 10 to 1000", func(r *specs.LinuxResources, text string) error {
		n, err := strconv.ParseUint(text, 10, 16)
		r.BlockIO.Weight = new(uint16(n))
		return err
	}},
	{"cpu-burst", "`microseconds` of quota that may be saved up", count(func(r *specs.LinuxResources, n uint64) { r.CPU.Burst = &n })},
	{"cpu-idle", "1 for a cgroup that runs where nobody else wants to", limit(func(r *specs.LinuxResources, n int64) { r.CPU.Idle = &n })},
	{"cpu-period", "`microseconds` of a period", count(func(r *specs.LinuxResources, n uint64) { r.CPU.Period = &n })},
	{"cpu-quota", "`microseconds` in each period; -1 for no limit", limit(func(r *specs.LinuxResources, n int64) { r.CPU.Quota = &n })},
	{"cpu-rt-period", "refused: cgroup v2 has nothing like it", count(func(r *specs.LinuxResources, n uint64) { r.CPU.RealtimePeriod = &n })},
	{"cpu-rt-runtime", "refused: cgroup v2 has nothing like it", limit(func(r *specs.LinuxResources, n int64) { r.CPU.RealtimeRuntime = &n })},
	{"cpu-share", "`shares` of the CPUs, 2 to 262144", count(func(r *specs.LinuxResources, n uint64) { r.CPU.Shares = &n })},
	{"cpus", "number of `CPUs`, such as 1.5, as a quota", func(r *specs.LinuxResources, text string) error {
		n, err := strconv.ParseFloat(text, 64)
		const period = 100000
		if !(n > 0 && n < 1e6) {
			err = errors.Join(err, fmt.Errorf("%q is no number of CPUs", text))
		}
		r.CPU.Quota, r.CPU.Period = new(int64(n*period)), new(uint64(period))
		return err
	}},
	{"cpuset-cpus", "`list` of CPUs", func(r *specs.LinuxResources, text string) error { r.CPU.Cpus = text; return nil }},
	{"cpuset-mems", "`list` of memory nodes", func(r *specs.LinuxResources, text string) error { r.CPU.Mems = text; return nil }},
	{"memory", "`bytes`, also with a unit: 64m; -1 for no limit", size(func(r *specs.LinuxResources, n int64) { r.Memory.Limit = &n })},
	{"memory-reservation", "`bytes` that are taken last", size(func(r *specs.LinuxResources, n int64) { r.Memory.Reservation = &n })},
	{"memory-swap", "`bytes` of memory and swap together; -1 for no limit", size(func(r *specs.LinuxResources, n int64) { r.Memory.Swap = &n })},
	{"pids-limit", "`number` of processes and threads; -1 for no limit", limit(func(r *specs.LinuxResources, n int64) { r.Pids.Limit = &n })},
}

func count(set func(*specs.LinuxResources, uint64)) func(*specs.LinuxResources, string) error {
	return func(r *specs.LinuxResources, text string) error {
		n, err := strconv.ParseUint(text, 10, 64)
		set(r, n)
		return err
	}
}

func limit(set func(*specs.LinuxResources, int64)) func(*specs.LinuxResources, string) error {
	return func(r *specs.LinuxResources, text string) error {
		n, err := strconv.ParseInt(text, 10, 64)
		set(r, n)
		return err
	}
}

func size(set func(*specs.LinuxResources, int64)) func(*specs.LinuxResources, string) error {
	return func(r *specs.LinuxResources, text string) error {
		n, err := parseSize(text)
		set(r, n)
		return err
	}
}

// parseSize parses a number of bytes, which may have a unit as in "64m" or "1GiB"; units are powers of 1024.
func parseSize(text string) (int64, error) {
	if text == "-1" {
		return container.Unlimited, nil
	}
	number := strings.ToLower(text)
	for _, suffix := range []string{"b", "i"} {
		number = strings.TrimSuffix(number, suffix)
	}
	factor := int64(1)
	for i, unit := range []string{"k", "m", "g", "t"} {
		if rest, ok := strings.CutSuffix(number, unit); ok {
			number, factor = rest, 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || int64(n) > math.MaxInt64/factor {
		return 0, fmt.Errorf("invalid size: %q", text)
	}
	return int64(n) * factor, nil
}

func updateCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	in := specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{}, Pids: &specs.LinuxPids{}, BlockIO: &specs.LinuxBlockIO{}}
	for _, u := range updateFlags {
		f.Func(u.name, u.about, func(text string) error { return u.set(&in, text) })
	}
	file := ""
	f.StringVar(&file, "resources", "", "`file` with the limits as JSON, or - for standard input; other flags are ignored then")
	f.StringVar(&file, "r", "", "`file` with the limits as JSON, or - for standard input")
	return func(args []string) (int, error) {
		c, err := a.load(args[0])
		if err != nil {
			return 1, err
		}
		if file != "" {
			in = specs.LinuxResources{}
			if err := readResources(file, &in); err != nil {
				return 1, err
			}
		}
		if err := complete(c, &in); err != nil {
			return 1, err
		}
		r, err := container.ResourcesFromSpec(&in)
		if err != nil {
			return 1, err
		}
		return code(c.Set(r))
	}
}

func readResources(name string, in *specs.LinuxResources) error {
	file := os.Stdin
	if name != "-" {
		var err error
		if file, err = os.Open(name); err != nil {
			return err
		}
		defer file.Close()
	}
	text, err := io.ReadAll(io.LimitReader(file, 1<<20))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, in)
}

// complete adds the present value of what the specification counts together with something that is to change.
func complete(c *container.Container, in *specs.LinuxResources) error {
	swap := in.Memory != nil && in.Memory.Swap != nil && *in.Memory.Swap > 0 && (in.Memory.Limit == nil || *in.Memory.Limit == 0)
	period := in.CPU != nil && in.CPU.Period != nil && (in.CPU.Quota == nil || *in.CPU.Quota == 0)
	if !swap && !period {
		return nil
	}
	stats, err := c.Stats()
	if err != nil {
		return err
	}
	if swap && stats.Memory != nil {
		in.Memory.Limit = &stats.Memory.Max
	}
	if period {
		in.CPU.Quota = &stats.CPU.Quota
	}
	return nil
}
