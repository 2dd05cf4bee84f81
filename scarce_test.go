//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file starts containers where there is too little of something: files that may be open, room for the record.

// scarceFiles lives with each number of open files from 3 on, until it has worked some times.
func scarceFiles(o crashOrder) error {
	if err := crashCreate(o); err != nil { // what the runtime opens once is open now
		return err
	}
	var was unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		return err
	}
	for limit, worked := uint64(3), 0; worked < 3; limit++ {
		now := was
		now.Cur = limit
		if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &now, nil); err != nil {
			return err
		}
		err := scarceLife(o)
		if rerr := unix.Prlimit(0, unix.RLIMIT_NOFILE, &was, nil); rerr != nil {
			return rerr
		}
		if err == nil {
			worked++
		} else if !errors.Is(err, unix.EMFILE) {
			return fmt.Errorf("with %d files: %w", limit, err)
		}
		if limit > 200 {
			return fmt.Errorf("with %d files: %w", limit, err)
		}
		// What could not be destroyed then can be now.
		c, err := Load(o.Dir, "x")
		if err == nil {
			err = c.Destroy()
		}
		if err != nil && !errors.Is(err, ErrNotExist) {
			return fmt.Errorf("after %d files: %w", limit, err)
		}
		if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
			return fmt.Errorf("after %d files there are %v, %v", limit, left, err)
		}
	}
	return nil
}

// scarceLife is one life. Each step may fail; each but Destroy leaves nothing then.
func scarceLife(o crashOrder) error {
	ctx := context.Background()
	c, err := New(o.Dir, "x", o.Cfg)
	if err != nil {
		if _, serr := os.Lstat(o.Dir + "/x"); !errors.Is(serr, fs.ErrNotExist) {
			return fmt.Errorf("a New that fails leaves something: %v, %v", serr, err)
		}
		return err
	}
	err = func() error {
		if err := c.Create(ctx, crashProcess()); err != nil {
			return err
		}
		if err := c.Start(ctx); err != nil {
			return err
		}
		return c.Exec(ctx, crashProcess())
	}()
	return errors.Join(err, c.Destroy())
}

func TestTooManyFiles(t *testing.T) {
	leak.Check(t)
	crashAdopt(t)
	for name, cfg := range createKinds(t) {
		t.Run(name, func(t *testing.T) {
			o := crashOrder{Life: "few files", Dir: t.TempDir(), Cfg: cfg}
			cmd, out := o.command(t)
			began := time.Now()
			if err := cmd.Run(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			crashNoProcess(t)
		})
	}
}

// With any number of files and any room that the file system of the records has, each step works or says so and leaves
// nothing, and Destroy works.
func TestNoSpace(t *testing.T) {
	kinds := createKinds(t)
	inMountNamespace(t, func(t *testing.T) {
		leak.Check(t)
		for _, name := range []string{"plain", "detached", "no PID namespace", "detached, no PID namespace"} {
			for option, row := range map[string]struct{ from, step, to int }{
				"nr_inodes=%d": {1, 1, 14},
				"size=%dk":     {4, 4, 64},
			} {
				worked := 0
				for n := row.from; n <= row.to; n += row.step {
					some, took := noSpaceLife(t, kinds[name], fmt.Sprintf(option, n))
					if some {
						worked++
					}
					if took > crashSoon && !t.Failed() { // see crashAt
						if _, again := noSpaceLife(t, kinds[name], fmt.Sprintf(option, n)); again > crashSoon {
							t.Errorf("%s: Destroy took %v, and then %v", fmt.Sprintf(option, n), took, again)
						}
					}
					if t.Failed() {
						return
					}
				}
				if worked == 0 {
					t.Errorf("%s, %s: nothing worked up to %d", name, option, row.to)
				}
			}
		}
	})
}

// noSpaceLife also returns how long Destroy took.
func noSpaceLife(t *testing.T, cfg Config, options string) (worked bool, took time.Duration) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(options, err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	full := func(err error) bool {
		t.Helper()
		if err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v", options, err)
		}
		return err != nil
	}
	c, err := New(dir, "x", cfg)
	if full(err) {
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: a New that fails leaves %v", options, left)
		}
		return false, 0
	}
	before, _ := os.ReadDir(c.record.dir)
	if full(c.Create(context.Background(), crashProcess())) {
		if after, _ := os.ReadDir(c.record.dir); len(after) != len(before) {
			t.Errorf("%s: a Create that fails leaves %v", options, after)
		}
	} else {
		worked = true
		full(c.Start(context.Background()))
		// And now there is no room for anything.
		for i := range 1000 {
			if os.WriteFile(fmt.Sprintf("%s/filler%d", c.record.dir+"/..", i), make([]byte, 4096), 0o600) != nil {
				break
			}
		}
	}
	began := time.Now()
	err = createLoaded(t, c).Destroy()
	if took = time.Since(began); err != nil {
		t.Errorf("%s: Destroy: %v after %v", options, err, took)
	}
	c.Wait()
	if _, err := os.Lstat(c.record.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: the record is still there: %v", options, err)
	}
	return worked, took
}
