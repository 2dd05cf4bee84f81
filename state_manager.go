package container

import "errors"

// This file is the view of a state directory for who wants to know about containers and not to act on them.

// A StateManager reads and keeps the states of the containers of one state directory. It holds nothing
// open, so any number of them, in any number of processes, may be used at the same time.
type StateManager struct{ stateDir string }

// NewStateManager returns one for a state directory, which need not exist yet.
func NewStateManager(stateDir string) *StateManager { return &StateManager{stateDir} }

// LoadState returns the state of a container, its status as the kernel has it at this moment. It returns
// ErrNotExist if there is no such container.
func (m *StateManager) LoadState(id string) (*ContainerState, error) {
	c, err := Load(m.stateDir, id)
	if err != nil {
		return nil, err
	}
	return c.State()
}

// ListStates returns the states of all containers, ordered by id. Those that are destroyed meanwhile, and
// those with a record that cannot be read, are left out; [List] has the latter.
func (m *StateManager) ListStates() ([]*ContainerState, error) {
	list, err := List(m.stateDir)
	if err != nil {
		return nil, err
	}
	states := make([]*ContainerState, 0, len(list))
	for _, c := range list {
		if state, err := c.State(); err == nil {
			states = append(states, state)
		}
	}
	return states, nil
}

// SaveState keeps the annotations of state as those of the container state.ID. The rest of a state is not the
// caller's to change: it says what the kernel and this package have done. It returns ErrNotExist if the
// container is not there any more, also if its id is another's by now.
func (m *StateManager) SaveState(state *ContainerState) error {
	c, err := Load(m.stateDir, state.ID)
	if err != nil {
		return err
	}
	return c.annotate(state)
}

// DeleteState destroys a container that has no process, and returns ErrRunning if it has one: a state
// without its container would leave processes and mounts that nobody knows of. It returns nil if there is
// no such container.
func (m *StateManager) DeleteState(id string) error {
	c, err := Load(m.stateDir, id)
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if state, err := c.State(); err == nil && state.Pid != 0 {
		return &Error{Op: "delete state", ID: id, Err: ErrRunning}
	}
	return c.Destroy()
}
