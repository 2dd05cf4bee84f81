//go:build linux

package container

import (
	"net/netip"
	"testing"
)

// Ports are reached from another host, from the host, from other containers and from the container itself, and see who has sent.
func TestNATPorts(t *testing.T) {
	inNAT(t, func(t *testing.T, r *natRig) {
		a, b := r.bridge("br0", "10.88.0", "fd88", false), r.bridge("br1", "10.89.0", "fd89", false)
		web := r.container("web", a,
			PortMapping{HostPort: 8080, ContainerPort: 80}, PortMapping{HostPort: 5353, ContainerPort: 53, Protocol: "udp"},
			PortMapping{HostIP: netip.MustParseAddr("198.51.100.1"), HostPort: 8081, ContainerPort: 80},
			PortMapping{HostIP: netip.MustParseAddr("2001:db8:2::1"), HostPort: 8081, ContainerPort: 80},
			PortMapping{HostPort: 9000, ContainerPort: 90, Count: 3})
		peer, other := r.container("peer", a), r.container("other", b)
		for _, port := range []string{":80", ":81", ":90", ":91", ":92", ":93"} {
			web.listen("tcp", port)
		}
		web.listen("udp4", "0.0.0.0:53")
		web.listen("udp6", "[::]:53")
		r.server.listen("tcp", ":80")
		r.eachPath(func(path string) {
			for i, host := range []string{"192.0.2.1", "[2001:db8:1::1]"} {
				from := []string{"192.0.2.2", "2001:db8:1::2"}[i]
				toServer := []string{"198.51.100.2:80", "[2001:db8:2::2]:80"}[i]
				exact := []string{"198.51.100.1", "[2001:db8:2::1]"}[i]
				gateway := []string{"10.88.0.1", "[fd88::1]"}[i]
				for _, port := range []struct{ network, port string }{{"tcp", ":8080"}, {"udp", ":5353"}, {"tcp", ":9000"}, {"tcp", ":9002"}} {
					r.client.reaches(port.network, host+port.port, "web", from)
					r.reaches(port.network, host+port.port, "web", netip.MustParseAddr(host[i:len(host)-i]).String())
					peer.reaches(port.network, host+port.port, "web")
					peer.reaches(port.network, gateway+port.port, "web")
					web.reaches(port.network, host+port.port, "web")
					other.reaches(port.network, host+port.port, "web", other.addr(i == 1))
				}
				// A mapping of one address is of no other.
				r.client.reaches("tcp", exact+":8081", "web", from)
				r.reaches("tcp", exact+":8081", "web")
				r.client.misses("tcp", host+":8081")
				r.misses("tcp", host+":8081")
				// Nothing else of the container's is reached, not even by a neighbour that knows the way.
				for _, port := range []uint16{80, 81} {
					r.client.misses("tcp", web.at(i == 1, port))
					other.misses("tcp", web.at(i == 1, port))
				}
				r.client.misses("tcp", host+":9003")
				peer.reaches("tcp", web.at(i == 1, 81), "web", peer.addr(i == 1))
				r.reaches("tcp", web.at(i == 1, 81), "web")
				// Out goes what has the host's address: the server knows no way back to the container's.
				web.reaches("tcp", toServer, "server", []string{"198.51.100.1", "2001:db8:2::1"}[i])
			}
			if t.Failed() {
				t.Fatal(path)
			}
		})
	})
}
