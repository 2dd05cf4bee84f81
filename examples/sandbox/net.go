package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"example.com/container"
)

// This file is the command's network, as -net and -p say.

// network is what the flags have said.
type network struct {
	mode  container.NetworkMode
	all   bool
	allow []string
	ports []container.PortMapping
}

// netFlags defines the flags.
func netFlags() *network {
	n := &network{}
	flag.Func("net", "`MODE` of the network: none (the default), host, all, or allow=HOST[:PORT],... with rules such as *.example.com:443, 192.0.2.0/24:80-90, udp:192.0.2.53:53", n.set)
	flag.Func("p", "publish `[[HOST:]PORT:]PORT[/udp]` of the command's, for example 127.0.0.1:8080:80; can be given several times", func(text string) error {
		m, err := container.ParsePortMapping(text)
		n.ports = append(n.ports, m)
		return err
	})
	return n
}

// set reads a mode.
func (n *network) set(text string) error {
	rules, isList := strings.CutPrefix(text, "allow=")
	switch {
	case isList:
		n.mode, n.allow = container.NetworkModeEgress, strings.Split(rules, ",")
		for _, rule := range n.allow {
			if _, err := container.ParseEgressRule(rule); err != nil {
				return err
			}
		}
	case text == "all":
		n.mode, n.all = container.NetworkModeEgress, true
	case text == "none":
		n.mode = container.NetworkModeNone
	case text == "host":
		n.mode = container.NetworkModeHost
	default:
		return errors.New("want none, host, all or allow=HOST[:PORT], with commas between several")
	}
	return nil
}

// apply puts it into a configuration.
func (n *network) apply(cfg *container.Config) {
	cfg.Network = &container.NetworkConfig{Mode: n.mode, EgressAllow: n.allow, PortMappings: n.ports}
	switch {
	case n.mode == container.NetworkModeHost:
		cfg.Namespaces.NewNet = false
	case n.all:
		cfg.Network.Egress = container.AllowAllEgress
	}
	if n.mode == container.NetworkModeEgress {
		cfg.Network.OnEgress = func(e container.EgressEvent) {
			if errors.Is(e.Err, container.ErrEgressDenied) {
				fmt.Fprintln(os.Stderr, "sandbox:", e.Err)
			}
		}
	}
}
