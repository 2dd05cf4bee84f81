//go:build linux

package container

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
)

// A limit whose controller is not there is an error that names the controller, not a file, and leaves nothing.
func TestLimitsMissingController(t *testing.T) {
	testenv.Need(t, testenv.Cgroup)
	limits := map[string]*Resources{
		"memory":  {Memory: &MemoryResources{Max: new(int64(64 << 20)), SwapMax: new(int64(0))}},
		"cpu":     {CPU: &CPUResources{Weight: 5}},
		"pids":    {Pids: &PidsResources{Max: new(int64(50))}},
		"io":      {IO: &IOResources{Weight: 5}},
		"hugetlb": {Unified: map[string]string{"hugetlb.2MB.max": "0"}},
		"rdma":    {Unified: map[string]string{"rdma.max": "mlx4_0 hca_handle=2"}},
		"misc":    {Unified: map[string]string{"misc.max": "res_a 1"}},
	}
	place, err := (*CgroupConfig)(nil).place("x", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tree, err := findCgroupTree()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := tree.open(place.Top)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	there, err := (&Cgroup{dir: dir, path: place.Top}).words("cgroup.controllers")
	if err != nil {
		t.Fatal(err)
	}
	missing := 0
	for name, r := range limits {
		if slices.Contains(there, name) {
			continue
		}
		missing++
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cfg := cgroupConfig(t)
			cfg.Resources = r
			c, err := New(t.TempDir(), "demo", cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Destroy()
			err = c.Run(t.Context(), lifeSh("exit 0"))
			var e *Error
			if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "no controller "+name) || !errors.As(err, &e) {
				t.Errorf("%v", err)
			} else if !strings.Contains(err.Error(), "(") {
				t.Errorf("%v: no remedy", err)
			}
		})
	}
	if missing == 0 {
		t.Skip("no controller is missing here")
	}
}
