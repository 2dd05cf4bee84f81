//go:build linux

package container

import (
	"testing"

	"example.com/container/internal/leak"
)

// This file makes calls of a start with egress fail, one by one; see fault_test.go.

func TestEgressFaults(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	cfg.Network = &NetworkConfig{Mode: NetworkModeEgress, EgressAllow: []string{"example.com"}}
	injectFaults(t, cfg, false, "network", "hosts and names")
}
