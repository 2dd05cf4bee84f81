//go:build linux

// Command bench times what container does against other programs that do the same: crun, runc,
// bubblewrap and podman, those of them that are installed, and against a C program that makes only
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
	"time"
)

// A row is one kind of work that several contenders can do.
type row struct {
	name, about string
	// contenders returns those that this machine has, ours first. Those that cannot take part are
	// named with the reason in skipped. dir is empty and removed afterwards.
	contenders func(dir string) (those []contender, skipped []string, err error)
}

// rows is the list of all work.
var rows = []row{
	{"run", "directory rootfs, static true, all namespaces but user; as root", runContenders},
	{"run-rootless", "the same in a user namespace, one id mapped", rootlessContenders},
}

// A contender can do the work of a row.
type contender struct {
	name string
	// once does the work and says how long it took.
	once func() (time.Duration, error)
	// close ends what the contender needs between rounds. May be nil.
	close func() error
}

func main() {
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
	contenders, skipped, err := r.contenders(dir)
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range contenders {
			if c.close != nil {
				c.close()
			}
		}
	}()

	var results []result
	for _, c := range contenders {
		if _, err := c.once(); err != nil {
			skipped = append(skipped, fmt.Sprintf("%s: %v", c.name, err))
			continue
		}
		results = append(results, result{contender: c})
	}
	for range rounds {
		for i := range results {
			took, err := results[i].once()
			if err != nil {
				return fmt.Errorf("%s: %w", results[i].name, err)
			}
			results[i].times = append(results[i].times, took)
		}
	}
	r.print(out, results, skipped)
	return nil
}
