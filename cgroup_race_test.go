//go:build linux

package container

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// Everybody does everything with one container, by the Container that has started it and by another, and then it is
// destroyed. Nothing hangs, nothing is left, and every error is one of those that the documentation names.
func TestCgroupEverythingAtOnce(t *testing.T) {
	for range 5 {
		t.Run("", func(t *testing.T) {
			leak.Check(t)
			cfg := cgroupConfig(t)
			c := lifeStart(t, cfg, lifeSh("sleep 1000"))
			other, err := Load(filepath.Dir(c.record.dir), c.id)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			var all sync.WaitGroup
			each := func(name string, do func(*Container) error) {
				for _, c := range []*Container{c, other} {
					all.Go(func() {
						for ctx.Err() == nil {
							err := do(c)
							switch {
							case errors.Is(err, ErrNotRunning), errors.Is(err, ErrNotExist), errors.Is(err, ErrNoCgroup):
								return
							case err != nil && !errors.Is(err, ErrPaused):
								t.Errorf("%s: %v", name, err)
								return
							}
						}
						t.Errorf("%s does not notice the end", name)
					})
				}
			}
			each("Pause", func(c *Container) error { return c.Pause(ctx) })
			each("Resume", func(c *Container) error { return c.Resume(ctx) })
			each("Exec", func(c *Container) error {
				p := lifeSh("true")
				if err := c.Exec(ctx, p); err != nil {
					return err
				}
				err := p.Wait()
				var exit *ExitError
				if errors.As(err, &exit) && exit.Signal == unix.SIGKILL {
					err = nil // destroyed
				}
				return err
			})
			each("Set", func(c *Container) error { return c.Set(&Resources{}) })
			each("Stats", func(c *Container) error {
				_, err := c.Stats()
				return err
			})
			each("Status", func(c *Container) error {
				status, err := c.Status()
				if status == StatusStopped {
					return ErrNotRunning
				}
				return err
			})
			each("Events", func(c *Container) error {
				for e, err := range c.Events(ctx) {
					if err != nil {
						return err
					}
					if e.Type == EventExit {
						return ErrNotRunning
					}
				}
				return nil
			})
			time.Sleep(700 * time.Millisecond)
			start := time.Now()
			if err := c.Destroy(); err != nil {
				t.Error(err)
			}
			if d := time.Since(start); d > 30*time.Second {
				t.Errorf("Destroy took %v", d)
			}
			all.Wait()
		})
	}
}
