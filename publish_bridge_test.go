//go:build linux

package container

import (
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"testing"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// A port of a bridge is reached from loopback addresses as well, as long as the caller is there: the kernel does not forward these.
func TestPublishBridgeLoopback(t *testing.T) {
	testenv.Need(t, testenv.Root)
	inNetwork(t, func(t *testing.T) {
		leak.Check(t)
		dir := filepath.Join(t.TempDir(), "networks")
		for _, detached := range []bool{false, true} {
			cfg := testConfig(t)
			cfg.Namespaces.NewUser, cfg.StopTimeout, cfg.Detached = false, -1, detached
			cfg.Network = &NetworkConfig{Mode: NetworkModeBridge, Bridge: "test0", StateDir: dir, PortMappings: []PortMapping{
				{ContainerPort: 80}, {ContainerPort: 53, Protocol: "udp"}, {HostIP: loopback4, ContainerPort: 80},
			}}
			c := execSleeper(t, cfg)
			tellPeers(t, c, "tcp", ":80")
			packetEcho(t, c, "udp", ":53")
			ports := published(t, c)
			if len(ports) != 3 || ports[0].HostPort == 0 || ports[1].HostPort == 0 {
				t.Fatalf("%+v", ports)
			}
			wantText(t, ask(t, "", "tcp", net.JoinHostPort("198.51.100.7", port(ports[0].HostPort)))[:10], "hello from")
			wantText(t, ask(t, "", "tcp", at4(ports[2].HostPort))[:10], "hello from")
			for _, host := range []string{"127.0.0.1", "::1"} {
				addr := net.JoinHostPort(host, port(ports[0].HostPort))
				if detached {
					if conn, err := net.Dial("tcp", addr); !errors.Is(err, unix.ECONNREFUSED) {
						t.Errorf("%s of a detached container: %v, %v", host, conn, err)
					}
					continue
				}
				wantText(t, ask(t, "", "tcp", addr)[:10], "hello from")
				wantText(t, askPacket(t, "", net.JoinHostPort(host, port(ports[1].HostPort)), "hello")[:10], "hello from")
			}
			if err := c.Destroy(); err != nil {
				t.Fatal(err)
			}
		}
		// A program of the host's that has the port on its loopback is in the way, before anything starts.
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		cfg := testConfig(t)
		cfg.Namespaces.NewUser = false
		cfg.Network = &NetworkConfig{Mode: NetworkModeBridge, Bridge: "test0", StateDir: dir, PortMappings: []PortMapping{{HostPort: uint16(l.Addr().(*net.TCPAddr).Port), ContainerPort: 80}}}
		c := lifeNew(t, cfg)
		if err := c.Run(t.Context(), &Process{Args: []string{"true"}}); !errors.Is(err, ErrPortInUse) {
			t.Errorf("%v", err)
		}
		if err := RemoveBridge(t.Context(), dir, "test0"); err != nil {
			t.Error(err)
		}
	})
}

func port(n uint16) string { return strconv.Itoa(int(n)) }
