//go:build linux

package container

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"
)

// This file measures what a way out costs at the start and the end of a container.

// What a way out costs a container that lives for a moment.
func TestEgressStartTime(t *testing.T) {
	if os.Getenv("CONTAINER_BENCH_ROUNDS") == "" {
		t.Skip("set CONTAINER_BENCH_ROUNDS to measure")
	}
	times := map[NetworkMode][2][]time.Duration{}
	for range 60 {
		for _, mode := range []NetworkMode{NetworkModeNone, NetworkModeEgress} {
			cfg := testConfig(t)
			cfg.Network = &NetworkConfig{Mode: mode}
			c, err := New(t.TempDir(), "time", cfg)
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if err := c.Run(context.Background(), &Process{Args: []string{"true"}}); err != nil {
				t.Fatal(err)
			}
			started := time.Since(begin)
			if err := c.Wait(); err != nil {
				t.Fatal(err)
			}
			two := times[mode]
			two[0], two[1] = append(two[0], started), append(two[1], time.Since(begin))
			times[mode] = two
			if err := c.Destroy(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for mode, two := range times {
		slices.Sort(two[0])
		slices.Sort(two[1])
		t.Logf("%-7s started after %v, ended after %v (medians)", mode, two[0][30], two[1][30])
	}
}
