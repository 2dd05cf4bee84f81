//go:build linux

// Command bench times what container does against other programs that do the same: crun, runc,
// bubblewrap, podman, skopeo with umoci, those of them that are installed, and against a C program that makes only
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
	if len(os.Args) == 4 && os.Args[1] == pullFlag {
		if err := pullOnly(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
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
	var results []result
	for _, c := range f.contenders {
		if _, err := c.once(); err != nil {
			f.skipped = append(f.skipped, fmt.Sprintf("%s: %v", c.name, err))
			continue
		}
		results = append(results, result{contender: c})
	}
	for range rounds {
		for i := range results {
			s, err := results[i].once()
			if err != nil {
				return fmt.Errorf("%s: %w", results[i].name, err)
			}
			results[i].samples = append(results[i].samples, s)
		}
	}
	r.print(out, results, f.skipped)
	return nil
}
