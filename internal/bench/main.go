//go:build linux

// Command bench times what container does against other programs that do the same: crun, runc,
// bubblewrap, podman, skopeo with umoci, pasta, slirp4netns, those of them that are installed, and against a C program that makes only
// the system calls (testdata/floor.c).
//
//	go run ./internal/bench [-n ROUNDS] [-only ROW]
//
// The contenders of a row take turns, so that what else the machine does hits all alike. Ratios
// are of medians. As root and as an ordinary user different rows make sense; both print theirs.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
)

// A row is one kind of work that several contenders can do.
type row struct {
	name, about string
	// slow rows are timed for a tenth of the rounds.
	slow bool
	// prepare finds the contenders that this machine has, ours first. dir is empty, and removed at
	// the end.
	prepare func(dir string) (field, error)
}

// rows is the list of all work.
var rows = []row{
	{"run", "directory rootfs, static true, all namespaces but user; as root", false, prepareRun},
	{"run-rootless", "the same in a user namespace, one id mapped", false, prepareRootless},
	{"limits", "the same as root, in a cgroup with limits: memory, CPU, processes, as far as the host has these", false, prepareLimits},
	{"bridge", "the same as root, on a bridge that is there, with a published port", false, prepareBridge},
	{"egress", "20 connections to a server elsewhere, a byte each way, by a policy in this program; as root", false, prepareEgressConnect},
	{"egress-stream", "64 MiB by such a connection", true, prepareEgressStream},
	{"port", "20 connections to a server in a network of its own, by a port that a program carries; as root", false, preparePortConnect},
	{"port-stream", "64 MiB by such a connection", true, preparePortStream},
	{"parallel", "100 such containers, 8 at a time; as root", true, prepareParallel},
	{"parallel-rootless", "the same in a user namespace", true, prepareParallelRootless},
	{"exec", "another process, static true, in a container that runs; as root", false, prepareExec},
	{"exec-rootless", "the same in a user namespace, one id mapped", false, prepareExecRootless},
	{"pull", "an image of 4 layers, 13 000 files, from a registry on this machine, unpacked", true, preparePull},
}

// A field is all who take part.
type field struct {
	contenders []contender
	skipped    []string // who does not, and why
	end        []func() // ends what was started for the row, the last first
}

// add lets somebody take part, if possible.
func (f *field) add(name string, make func() (contender, error)) {
	c, err := make()
	if err != nil {
		f.skipped = append(f.skipped, name+": "+err.Error())
		return
	}
	c.name = name
	f.contenders = append(f.contenders, c)
}

func (f *field) close() {
	for _, end := range slices.Backward(f.end) {
		end()
	}
}

// A contender can do the work of a row.
type contender struct {
	name string
	// once does the work and says what it took.
	once func() (sample, error)
}

func main() {
	help()
	rounds := flag.Int("n", 50, "`rounds` to time, after one to warm up")
	only := flag.String("only", "", "time only the `row` of this name")
	flag.Parse()
	err := onlyCgroup2()
	if err == nil {
		err = bench(os.Stdout, *rounds, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(out io.Writer, rounds int, only string) error {
	if rounds < 1 {
		return errors.New("no rounds")
	}
	known := false
	for _, r := range rows {
		if only != "" && only != r.name {
			continue
		}
		known = true
		if err := r.bench(out, rounds); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	if !known {
		return errors.New("no such row: " + only)
	}
	return nil
}

// bench times one row and prints its table.
func (r row) bench(out io.Writer, rounds int) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	f, err := r.prepare(dir)
	defer f.close()
	if err != nil {
		return err
	}
	if r.slow {
		rounds = (rounds + 9) / 10
	}

	resetPeak()
	results, err := f.race(rounds)
	if err != nil {
		return err
	}
	r.print(out, results, f.skipped)
	return nil
}

// race has the contenders take turns. Somebody else's program that fails takes no further part, whenever that is; what we do must not fail.
func (f *field) race(rounds int) ([]result, error) {
	var results []result
	for _, c := range f.contenders {
		results = append(results, result{contender: c})
	}
	for round := range 1 + rounds { // the first warms up
		var left []result
		for _, r := range results {
			s, err := r.once()
			switch {
			case err == nil:
				if round > 0 {
					r.samples = append(r.samples, s)
				}
				left = append(left, r)
			case r.name == oursName:
				return nil, fmt.Errorf("%s: %w", r.name, err)
			default:
				f.skipped = append(f.skipped, fmt.Sprintf("%s: round %d: %v", r.name, round, err))
			}
		}
		results = left
	}
	return results, nil
}
