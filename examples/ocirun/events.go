//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"os"
	"sync"
	"time"

	"example.com/container"
)

// This file tells what happens in a container and what it uses: events. The form is runc's, with the names of
// cgroup v1.

type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

type eventStats struct {
	CPU struct {
		Usage struct {
			Total  time.Duration `json:"total,omitempty"`
			Kernel time.Duration `json:"kernel"`
			User   time.Duration `json:"user"`
		} `json:"usage,omitempty"`
		Throttling struct {
			Periods          uint64        `json:"periods,omitempty"`
			ThrottledPeriods uint64        `json:"throttledPeriods,omitempty"`
			ThrottledTime    time.Duration `json:"throttledTime,omitempty"`
		} `json:"throttling,omitempty"`
		PSI *eventPressure `json:"psi,omitempty"`
	} `json:"cpu"`
	CPUSet struct{} `json:"cpuset"`
	Memory struct {
		Cache     uint64            `json:"cache,omitempty"`
		Usage     eventLimit        `json:"usage,omitempty"`
		Swap      eventLimit        `json:"swap,omitempty"`
		Kernel    eventLimit        `json:"kernel,omitempty"`
		KernelTCP eventLimit        `json:"kernelTCP,omitempty"`
		Raw       map[string]uint64 `json:"raw,omitempty"`
		PSI       *eventPressure    `json:"psi,omitempty"`
	} `json:"memory"`
	Pids struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	} `json:"pids"`
	Blkio struct {
		Bytes []eventIO      `json:"ioServiceBytesRecursive,omitempty"`
		Ops   []eventIO      `json:"ioServicedRecursive,omitempty"`
		PSI   *eventPressure `json:"psi,omitempty"`
	} `json:"blkio"`
	Hugetlb    map[string]eventLimit      `json:"hugetlb"`
	IntelRdt   struct{}                   `json:"intel_rdt"`
	Interfaces []container.InterfaceStats `json:"network_interfaces"`
}

type eventLimit struct {
	Limit   uint64 `json:"limit,omitempty"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type eventIO struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

type eventPressure struct {
	Some eventPressureTime `json:"some,omitempty"`
	Full eventPressureTime `json:"full,omitempty"`
}

type eventPressureTime struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  int64   `json:"total"` // microseconds
}

// unsigned is a limit as runc has it: none is the greatest number.
func unsigned(n int64) uint64 {
	if n == container.Unlimited {
		return math.MaxUint64
	}
	return uint64(n)
}

func pressureOf(p container.Pressure) *eventPressure {
	one := func(t container.PressureTime) eventPressureTime {
		return eventPressureTime{t.Avg10, t.Avg60, t.Avg300, t.Total.Microseconds()}
	}
	return &eventPressure{one(p.Some), one(p.Full)}
}

// statsEvent turns statistics into runc's form.
func statsEvent(s *container.Stats) *eventStats {
	e := &eventStats{Interfaces: s.Interfaces}
	e.CPU.Usage.Total, e.CPU.Usage.Kernel, e.CPU.Usage.User = s.CPU.Usage, s.CPU.System, s.CPU.User
	e.CPU.Throttling.Periods, e.CPU.Throttling.ThrottledPeriods, e.CPU.Throttling.ThrottledTime = s.CPU.Periods, s.CPU.Throttled, s.CPU.ThrottledTime
	if m := s.Memory; m != nil {
		e.Memory.Cache = m.Stat.File
		e.Memory.Usage = eventLimit{Limit: unsigned(m.Max), Usage: m.Current, Max: m.Peak, Failcnt: m.Events.Max}
		e.Memory.Swap = eventLimit{Limit: math.MaxUint64, Usage: m.Current + m.Swap}
		if m.Max != container.Unlimited && m.SwapMax != container.Unlimited {
			e.Memory.Swap.Limit = uint64(m.Max) + uint64(m.SwapMax)
		}
		e.Memory.Raw = make(map[string]uint64)
		for name, n := range m.Stat.All() {
			e.Memory.Raw[name] = n
		}
	}
	if s.Pids != nil {
		e.Pids.Current = s.Pids.Current
		if s.Pids.Max != container.Unlimited {
			e.Pids.Limit = uint64(s.Pids.Max)
		}
	}
	if s.IO != nil {
		for _, d := range s.IO.Devices {
			major, minor := uint64(d.Major), uint64(d.Minor)
			e.Blkio.Bytes = append(e.Blkio.Bytes, eventIO{major, minor, "Read", d.ReadBytes}, eventIO{major, minor, "Write", d.WriteBytes})
			e.Blkio.Ops = append(e.Blkio.Ops, eventIO{major, minor, "Read", d.Reads}, eventIO{major, minor, "Write", d.Writes})
		}
	}
	for size, h := range s.Hugetlb {
		if e.Hugetlb == nil {
			e.Hugetlb = make(map[string]eventLimit)
		}
		e.Hugetlb[size] = eventLimit{Usage: h.Current, Failcnt: h.MaxEvents}
	}
	if p := s.Pressure; p != nil {
		e.CPU.PSI, e.Memory.PSI, e.Blkio.PSI = pressureOf(p.CPU), pressureOf(p.Memory), pressureOf(p.IO)
	}
	return e
}

func eventsCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	once := f.Bool("stats", false, "display the container's stats then exit")
	interval := f.Duration("interval", 5*time.Second, "`time` between the stats")
	return func(args []string) (int, error) {
		if *interval <= 0 {
			return 1, errors.New("duration interval must be greater than 0")
		}
		c, err := a.load(args[0])
		if err != nil {
			return 1, err
		}
		out := json.NewEncoder(os.Stdout)
		if *once {
			s, err := c.Stats()
			if err != nil {
				return 1, err
			}
			return code(out.Encode(event{"stats", c.ID(), statsEvent(s)}))
		}
		return code(follow(c, *interval, out))
	}
}

// follow prints statistics and events until the container ends.
func follow(c *container.Container, interval time.Duration, out *json.Encoder) error {
	var one sync.Mutex // around out
	print := func(e event) error {
		one.Lock()
		defer one.Unlock()
		return out.Encode(e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		for e, err := range c.Events(ctx) {
			if err == nil && e.Type == container.EventOOM {
				err = print(event{Type: "oom", ID: c.ID()})
			}
			if err != nil {
				failed = err
				return
			}
		}
	}()
	var err error
	for s, e := range c.StatsEvery(ctx, interval) {
		if err = e; err == nil {
			err = print(event{"stats", c.ID(), statsEvent(s)})
		}
		if err != nil {
			break
		}
	}
	cancel()
	<-done
	if errors.Is(err, container.ErrNotExist) || errors.Is(err, container.ErrNoCgroup) { // it has been deleted meanwhile
		err = nil
	}
	return errors.Join(failed, err)
}
