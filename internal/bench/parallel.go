//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// This file has the contenders that start many containers, several at a time.

const (
	parallelRuns = 100
	atATime      = 8
)

func prepareParallel(dir string) (field, error) {
	if os.Geteuid() != 0 {
		return field{skipped: []string{"all: this is not root"}}, nil
	}
	return prepareMany(dir, false)
}

func prepareParallelRootless(dir string) (field, error) { return prepareMany(dir, true) }

func prepareMany(dir string, userns bool) (f field, err error) {
	s, err := newStart(&f, dir, userns, program)
	if err != nil {
		return f, err
	}
	f.add(oursName, func() (contender, error) {
		return contender{once: func() (sample, error) {
			return many(func(_, i int) error { return s.runOurs(fmt.Sprint("bench-", i)) })
		}}, nil
	})
	f.add("C floor", func() (contender, error) { return s.floors(&f) })
	f.add("crun", func() (contender, error) {
		return manyOf(func(i int) (contender, error) { return s.runtime(i, "crun", "--cgroup-manager=disabled") })
	})
	f.add("runc", func() (contender, error) {
		return manyOf(func(i int) (contender, error) { return s.runtime(i, "runc") })
	})
	f.add("bwrap", func() (contender, error) { return manyOf(func(int) (contender, error) { return s.bwrap() }) })
	return f, nil
}

// runtime is an OCI runtime that runs the container of a number.
func (s start) runtime(i int, name string, options ...string) (contender, error) {
	return command(name, append(options, "--root", filepath.Join(s.state, name), "run", "--bundle", s.dir, fmt.Sprintf("bench-%s-%d", name, i))...)
}

// floors are as many as work at a time.
func (s start) floors(f *field) (contender, error) {
	var list [atATime]contender
	for i := range list {
		var err error
		if list[i], err = s.floor(f, floorSource, s.rootfs, program); err != nil {
			return contender{}, err
		}
	}
	return contender{once: func() (sample, error) {
		return many(func(worker, _ int) error { _, err := list[worker].once(); return err })
	}}, nil
}

// manyOf does the work of all at once.
func manyOf(numbered func(i int) (contender, error)) (contender, error) {
	var list [parallelRuns]contender
	for i := range list {
		var err error
		if list[i], err = numbered(i); err != nil {
			return contender{}, err
		}
	}
	return contender{once: func() (sample, error) {
		return many(func(_, i int) error { _, err := list[i].once(); return err })
	}}, nil
}

// many calls do for each number, some at a time.
func many(do func(worker, i int) error) (sample, error) {
	var wg sync.WaitGroup
	numbers := make(chan int)
	errs := make([]error, parallelRuns)
	var ready sync.WaitGroup
	ready.Add(atATime)
	for worker := range atATime {
		wg.Go(func() {
			unseen := onlyCgroup2() // as the thread of main: what a thread starts has its mounts
			ready.Done()
			for i := range numbers {
				errs[i] = cmp.Or(unseen, do(worker, i))
			}
		})
	}
	ready.Wait()
	began := time.Now()
	for i := range parallelRuns {
		numbers <- i
	}
	close(numbers)
	wg.Wait()
	return sample{wall: time.Since(began)}, errors.Join(errs...)
}
