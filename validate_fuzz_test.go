package container

import (
	"encoding/json"
	"errors"
	"math/bits"
	"strconv"
	"strings"
	"testing"
)

// Whatever stands in a stored or foreign configuration, validation ends with complaints about
// fields, and what passes has the properties that the rest relies on.
func FuzzValidateConfig(f *testing.F) {
	for _, c := range []*Config{pureConfig(nil), {}, pureConfig(func(c *Config) {
		c.Root = Root{Layers: []string{"/1", "/2"}, Upper: "/u"}
		c.Namespaces.NewNet = false
		c.Namespaces.Join = map[NamespaceKind]string{NetworkNamespace: "/run/netns/x"}
		c.UidMappings, c.GidMappings = []IDMap{pureMap(0, 1000, 1), pureMap(1, 100000, 65536)}, []IDMap{pureMap(0, 1000, 1)}
		c.Devices = DefaultDevices()
		c.Sysctl = map[string]string{"kernel.sem": "1 2 3 4", "net.ipv4.conf.eth0/1.forwarding": "1"}
		c.Capabilities = DefaultCapabilitiesConfig()
		c.Rlimits = []Rlimit{{"nofile", 1024, RlimInfinity}}
		c.Scheduler = &Scheduler{Policy: "deadline", Runtime: 2000, Deadline: 3000}
		c.IOPriority = &IOPriority{Class: "be", Priority: 4}
		c.CPUAffinity = "0-3"
	}), pureConfig(func(c *Config) {
		c.Network = pureNetwork()
	}), pureConfig(func(c *Config) {
		c.Network = &NetworkConfig{Mode: NetworkModeEgress, EgressAllow: []string{"*.example.com:443"}, PortMappings: []PortMapping{{HostSocket: "/run/x", ContainerPort: 80}}}
	})} {
		b, err := json.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Config
		if json.Unmarshal(b, &c) != nil {
			return
		}
		if err := c.validate(); err != nil {
			var errs fieldErrors
			errs.add(err)
			for _, err := range errs {
				var f *FieldError
				if !errors.As(err, &f) || f.Field == "" || f.Problem == "" || !errors.Is(err, ErrInvalidConfig) {
					t.Fatalf("%s\nnot a complaint about a field: %v", b, err)
				}
			}
			return
		}
		if c.Namespaces.isNew(MountNamespace) == (c.Root.Dir == "" && len(c.Root.Layers) == 0) {
			t.Fatalf("%s\nroot and mount namespace do not fit", b)
		}
		for _, m := range c.Mounts {
			if strings.HasPrefix(m.Target, "/proc/") || m.Target == "/" || strings.Contains(m.Target, "..") && strings.Contains(m.Target, "/../") {
				t.Fatalf("%s\nmounted on %s", b, m.Target)
			}
		}
		if c.Network != nil {
			checkPureNetwork(t, c.Network)
		}
		if _, err := c.Capabilities.sets(); err != nil {
			t.Fatalf("%s\n%v", b, err)
		}
	})
}

// The list as the kernel prints it is the oracle: what is parsed and printed again is the same set.
func FuzzParseCPUList(f *testing.F) {
	for _, s := range []string{"0", "0-3,7", "8191", "63,64", "5-4", "1,,2", "0-8191"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		mask, err := parseCPUList(s)
		if err != nil {
			return
		}
		if len(mask)%8 != 0 || len(mask) > maxCPUs/8 {
			t.Fatalf("%q: a mask of %d bytes", s, len(mask))
		}
		var list []string
		for i, b := range mask {
			for ; b != 0; b &= b - 1 {
				list = append(list, strconv.Itoa(i*8+bits.TrailingZeros8(b)))
			}
		}
		again, err := parseCPUList(strings.Join(list, ","))
		if err != nil || string(again) != string(mask) {
			t.Fatalf("%q is %x, again it is %x, %v", s, mask, again, err)
		}
	})
}
