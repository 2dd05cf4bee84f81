//go:build linux

package container

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// This file attaches device rules to a cgroup, as a program of eBPF. It runs in the caller's process. Programs of others, such as
// systemd's, stay where they are: the kernel asks all of them, also those of the cgroups above, and each may deny.

// deviceProgram is the name by which ours is known among the programs of a cgroup.
const deviceProgram = "container_dev"

// deviceTries is how often setDevices begins anew because somebody else has exchanged the program meanwhile.
const deviceTries = 100

// setDevices makes rules, which have been checked, those of the cgroup, in place of the ones that it has; nil: it has none any more. Rules replace
// rules in one step, so that there is no moment without. After an error those that were there still are.
func (c *Cgroup) setDevices(rules []DeviceRule) error {
	program := -1
	if rules != nil {
		var err error
		if program, err = bpfLoadDevices(deviceProgram, compileDeviceRules(rules), nil); err != nil {
			return deviceError(c.path, err)
		}
		defer unix.Close(program)
	}
	for range deviceTries {
		done, err := exchangeDevices(int(c.dir.Fd()), program)
		if done || err != nil {
			return deviceError(c.path, err)
		}
	}
	return deviceError(c.path, unix.EBUSY)
}

// exchangeDevices puts a program in the place of ours that is attached. Done is false if that has been exchanged meanwhile.
func exchangeDevices(cgroup, program int) (done bool, err error) {
	attached, err := attachedDevices(cgroup)
	if err != nil {
		return false, err
	}
	old := -1
	for i, fd := range attached {
		defer unix.Close(fd)
		if i == 0 {
			old = fd
			err = swapDevices(cgroup, old, program)
		} else if err == nil { // two callers were the first at the same time; until now both programs count
			err = swapDevices(cgroup, fd, -1)
		}
	}
	if old < 0 {
		err = swapDevices(cgroup, -1, program)
		return err == nil, err
	}
	if err == unix.ENOENT {
		return false, nil
	}
	return err == nil, err
}

// swapDevices puts a program in the place of another, either of which may be -1, for none. It returns ENOENT if the other is
// not attached.
func swapDevices(cgroup, from, to int) error {
	switch {
	case from >= 0 && to >= 0:
		return bpfAttachDevices(cgroup, to, &from)
	case to >= 0:
		return bpfAttachDevices(cgroup, to, nil)
	case from >= 0:
		return bpfDetachDevices(cgroup, from)
	}
	return nil
}

// bpfAttachDevices attaches a program to a cgroup, beside others or, if there is one to be replaced, in its place.
func bpfAttachDevices(cgroup, program int, replaced *int) error {
	a := &bpfAttachment{cgroup: uint32(cgroup), program: uint32(program), kind: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI}
	if replaced != nil {
		a.flags, a.replaced = a.flags|unix.BPF_F_REPLACE, uint32(*replaced)
	}
	return a.do(unix.BPF_PROG_ATTACH)
}

// bpfDetachDevices detaches a program from a cgroup.
func bpfDetachDevices(cgroup, program int) error {
	a := &bpfAttachment{cgroup: uint32(cgroup), program: uint32(program), kind: unix.BPF_CGROUP_DEVICE}
	return a.do(unix.BPF_PROG_DETACH)
}

// attachedDevices opens those programs of a cgroup that are ours.
func attachedDevices(cgroup int) (fds []int, err error) {
	ids, err := bpfQueryDevices(cgroup)
	for _, id := range ids {
		fd, openErr := bpfOpen(id)
		if openErr == unix.ENOENT {
			continue // it has been detached meanwhile
		}
		name, nameErr := "", openErr
		if openErr == nil {
			name, nameErr = bpfName(fd)
		}
		switch {
		case nameErr == nil && name == deviceProgram:
			fds = append(fds, fd)
			continue
		case nameErr != nil:
			err = errors.Join(err, nameErr)
		}
		if openErr == nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, err
	}
	return fds, nil
}

// CanLimitDevices tells whether the caller may use [Resources].Devices: it loads a program, which nothing runs, and
// forgets it. Otherwise the error says what is missing, and wraps ErrUnsupported; [Config.LimitDevicesByMounts] is
// what can be done instead.
func CanLimitDevices() error {
	fd, err := bpfLoadDevices(deviceProgram, compileDeviceRules(nil), nil)
	if err != nil {
		return deviceError("", err)
	}
	return unix.Close(fd)
}

// deviceError completes an error of bpf(2).
func deviceError(path string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: "cgroup", Path: path, Err: fmt.Errorf("Resources.Devices: %w", err)}
	unsupported := func(remedy string) {
		e.Err, e.Remedy = fmt.Errorf("%w: Resources.Devices: %w", ErrUnsupported, err), remedy
	}
	const instead = "; without it set Config.DevicesOnly and no Resources.Devices"
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		unsupported("it takes CAP_SYS_ADMIN on the host, not in a user namespace, and no program on the cgroup or above it that excludes others" + instead)
	case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL):
		unsupported("it takes a kernel with CONFIG_CGROUP_BPF" + instead)
	case errors.Is(err, unix.E2BIG):
		e.Remedy = "the cgroup has as many programs as the kernel lets it have, or the rules are too many"
	case errors.Is(err, unix.ENOENT):
		e.Err = fmt.Errorf("%w: %w", ErrNotExist, err) // the cgroup has been removed
	case errors.Is(err, unix.EBUSY):
		e.Remedy = "other processes change the rules all the time"
	}
	return e
}
