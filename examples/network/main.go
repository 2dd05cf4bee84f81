//go:build linux

// Network runs a server and a client in containers on a bridge: the client finds the server by its name, and the host, and others that reach it, by a
// published port. It needs root.
//
//	go run ./examples/network -p 8080:80
//
// The bridge is named container-demo, and gone afterwards.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"time"

	"example.com/container"
	"example.com/container/examples/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	subnet := flag.String("subnet", "", "`PREFIX` of the bridge, for example 10.99.0.0/24 (default: one that is free)")
	port := flag.String("p", "127.0.0.1::80", "publish `[[HOST:]PORT:]80`")
	flag.Parse()
	if err := demo(context.Background(), *subnet, *port); err != nil {
		return cli.Fail("network", err)
	}
	return 0
}

func demo(ctx context.Context, subnet, port string) (err error) {
	mapping, err := container.ParsePortMapping(port)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(cli.RunDir(), "container-network-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bridge := container.BridgeConfig{Name: "container-demo", StateDir: dir + "/networks"}
	if subnet != "" {
		prefix, err := netip.ParsePrefix(subnet)
		if err != nil {
			return err
		}
		bridge.Subnets = []netip.Prefix{prefix}
	}
	made, err := container.EnsureBridge(ctx, bridge)
	if err != nil {
		return err
	}
	defer func() {
		if rerr := container.RemoveBridge(ctx, bridge.StateDir, bridge.Name); err == nil {
			err = rerr
		}
	}()
	fmt.Println("bridge:", made.Name, made.Gateways)

	cfg := container.DefaultConfig()
	cfg.Root, cfg.DieWithParent, cfg.StopTimeout = container.HostRoot, true, -1
	cfg.Namespaces.NewUser = false
	cfg.Network = &container.NetworkConfig{Mode: container.NetworkModeBridge, Bridge: bridge.Name, StateDir: bridge.StateDir}

	// The server has a name besides its id, and a port.
	serving := cfg
	serving.Network = &container.NetworkConfig{Mode: container.NetworkModeBridge, Bridge: bridge.Name, StateDir: bridge.StateDir,
		Aliases: []string{"web"}, PortMappings: []container.PortMapping{mapping}}
	server, err := container.New(dir, "server", serving)
	if err != nil {
		return err
	}
	defer server.Destroy()
	if err := server.Run(ctx, &container.Process{Args: []string{"sh", "-c", "echo hello from the server >/tmp/index.html; exec busybox httpd -f -p 80 -h /tmp"}}); err != nil {
		return err
	}
	state, err := server.State()
	if err != nil {
		return err
	}
	fmt.Println("server:", state.Network.Addresses, state.Network.PortMappings)

	// The client knows its name only. It tries again if the server does not listen yet.
	cfg.Network.NameServer = true
	client, err := container.New(dir, "client", cfg)
	if err != nil {
		return err
	}
	defer client.Destroy()
	p := &container.Process{Args: []string{"curl", "-sS", "-m", "30", "--retry", "5", "--retry-connrefused", "http://web/index.html"}, Stderr: os.Stderr}
	out, err := p.StdoutPipe()
	if err != nil {
		return err
	}
	if err := client.Run(ctx, p); err != nil {
		return err
	}
	text, _ := io.ReadAll(out)
	if err := client.Wait(); err != nil {
		return err
	}
	fmt.Printf("client: %s", text)

	// The host knows its port.
	host := "127.0.0.1"
	if mapping.HostIP.IsValid() && !mapping.HostIP.IsUnspecified() {
		host = mapping.HostIP.String()
	}
	to := fmt.Sprintf("http://%s/index.html", netip.AddrPortFrom(netip.MustParseAddr(host), state.Network.PortMappings[0].HostPort))
	reply, err := (&http.Client{Timeout: 30 * time.Second}).Get(to)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	text, err = io.ReadAll(reply.Body)
	fmt.Printf("host, at %s: %s", to, text)
	return err
}
