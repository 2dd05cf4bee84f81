package container

import (
	"reflect"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file translates linux.netDevices of an OCI specification. The rest of a container's network is not the specification's matter.

// netDevices are moved into a new network namespace. What is at /etc/hosts and the like stays the caller's.
func (s *fromSpec) netDevices() {
	in := s.spec.Linux.NetDevices
	if len(in) == 0 {
		return
	}
	if !s.cfg.Namespaces.NewNet {
		s.errs.addf("linux.netDevices", "needs a new network namespace; name type network, without a path, in linux.namespaces")
	}
	n := &NetworkConfig{KeepFiles: true, NetDevices: make(map[string]NetDevice, len(in))}
	for name, device := range in {
		to := NetDevice{Name: device.Name}
		if device.Name == name {
			to.Name = "" // the same, and written so
		}
		n.NetDevices[name] = to
	}
	s.cfg.Network = n
}

// network is what the specification has words for: devices to be moved, and a network that is the host's.
func (t *toSpec) network() {
	n := t.cfg.Network
	if n == nil {
		return
	}
	alone := NetworkConfig{Mode: n.Mode, KeepFiles: n.KeepFiles, NetDevices: n.NetDevices}
	if mode := n.mode(); !reflect.DeepEqual(*n, alone) || mode != NetworkModeNone && mode != NetworkModeHost || t.cfg.ownNetworkFiles() {
		t.errs.addf("Network", "the specification has no word for it but for NetDevices, with KeepFiles; leave the rest out")
		return
	}
	for name, device := range n.NetDevices {
		if t.spec.Linux.NetDevices == nil {
			t.spec.Linux.NetDevices = make(map[string]specs.LinuxNetDevice)
		}
		t.spec.Linux.NetDevices[name] = specs.LinuxNetDevice{Name: device.Name}
	}
}
