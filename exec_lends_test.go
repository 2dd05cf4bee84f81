//go:build linux

package container

import (
	"errors"
	"testing"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
)

// TestExecLends: at the gate the launcher has CAP_SYS_ADMIN for the filter, which who may trace it could take.
func TestExecLends(t *testing.T) {
	testenv.Need(t, testenv.Root)
	leak.Check(t)
	cfg := testConfig(t)
	cfg.Namespaces.NewUser, cfg.NoNewPrivileges = false, false
	trace := []string{"CAP_SYS_PTRACE"}
	cfg.Capabilities = &Capabilities{Bounding: trace, Permitted: trace, Effective: trace}
	c := lifeNew(t, cfg)
	if err := c.Create(t.Context(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	look := func() *Process { return &Process{Args: []string{"readlink", "/proc/1/exe"}} }
	var e *Error
	if err := c.Exec(t.Context(), look()); !errors.Is(err, ErrUnsupported) || !errors.As(err, &e) || e.Remedy == "" {
		t.Errorf("before the start: %v", err)
	}
	harmless := look()
	harmless.Capabilities = &Capabilities{}
	if err := c.Exec(t.Context(), harmless); err != nil {
		t.Errorf("who may not trace: %v", err)
	} else if harmless.Wait() == nil {
		t.Error("it could look into the launcher")
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := look()
	if err := c.Exec(t.Context(), p); err != nil {
		t.Errorf("after the start: %v", err)
	} else if err := p.Wait(); err != nil {
		t.Error(err)
	}
}
