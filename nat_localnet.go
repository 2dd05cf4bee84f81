//go:build linux

package container

import (
	"os"
	"strings"
)

// This file lets the host reach ports of containers at its loopback addresses: the kernel sends such packets to a bridge only with
// route_localnet, and then takes them from there as well, which the chain "early" forbids. It runs in the caller's process.

// mapsLoopback tells whether a container has a port at a loopback address of IPv4.
func mapsLoopback(e *endpoint) bool {
	for _, m := range e.Network.PortMappings {
		if a := m.HostIP.Unmap(); a.Is4() && a.IsLoopback() {
			return true
		}
	}
	return false
}

// routeLocalnet sets route_localnet of a bridge. One that is not there needs none.
func routeLocalnet(bridge string, on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	if strings.ContainsRune(bridge, '/') || bridge == "" {
		return nil
	}
	err := os.WriteFile("/proc/sys/net/ipv4/conf/"+bridge+"/route_localnet", []byte(value), 0)
	if err == nil || os.IsNotExist(err) {
		return nil
	}
	return &Error{Op: "sysctl", Path: "net.ipv4.conf." + bridge + ".route_localnet", Err: err}
}

// restoreLocalnet switches it off when no container on the bridge needs it. The lock is held alone.
func (n *nat) restoreLocalnet(bridge string) error {
	for e, err := range n.s.endpoints() {
		if err != nil {
			return err
		}
		if e.Network.Bridge == bridge && mapsLoopback(e) {
			return nil
		}
	}
	return routeLocalnet(bridge, false)
}
