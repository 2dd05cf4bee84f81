//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"testing"

	"example.com/container/internal/leak"
)

func TestStateManager(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	cfg.Annotations = map[string]string{"a": "1"}
	cfg.Bundle = "/some/bundle"
	dir := t.TempDir()
	m := NewStateManager(dir)
	if list, err := m.ListStates(); len(list) != 0 || err != nil {
		t.Errorf("states of nothing: %v, %v", list, err)
	}
	if _, err := m.LoadState("x"); !errors.Is(err, ErrNotExist) {
		t.Errorf("state of nothing: %v", err)
	}
	c, err := New(dir, "x", cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(context.Background(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	state, err := m.LoadState("x")
	if err != nil || state.Status != StatusRunning || state.Bundle != cfg.Bundle || state.Annotations["a"] != "1" || state.Rootless == (os.Geteuid() == 0) {
		t.Errorf("state %+v, %v", state, err)
	}
	if err := m.DeleteState("x"); !errors.Is(err, ErrRunning) {
		t.Errorf("DeleteState of a running container: %v", err)
	}
	// What is the kernel's to say cannot be saved over.
	state.Annotations, state.Pid, state.Status = map[string]string{"b": "2"}, 1, StatusStopped
	if err := m.SaveState(state); err != nil {
		t.Fatal(err)
	}
	list, err := m.ListStates()
	if err != nil || len(list) != 1 || list[0].Status != StatusRunning || list[0].Pid != c.Pid() || list[0].Annotations["b"] != "2" || list[0].Annotations["a"] != "" {
		t.Errorf("states %+v, %v", list, err)
	}
	if err := c.Destroy(); err != nil {
		t.Fatal(err)
	}
	if err := m.SaveState(state); !errors.Is(err, ErrNotExist) {
		t.Errorf("SaveState of nothing: %v", err)
	}
	again, err := New(dir, "x", cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SaveState(state); !errors.Is(err, ErrNotExist) {
		t.Errorf("SaveState of another container's state: %v", err)
	}
	if err := m.DeleteState("x"); err != nil {
		t.Error(err)
	}
	if _, err := again.State(); !errors.Is(err, ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if err := m.DeleteState("x"); err != nil {
		t.Error(err)
	}
}
