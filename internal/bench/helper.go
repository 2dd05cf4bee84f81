//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
)

// This file is what this program does for itself in processes of their own: where processor time is to be measured as that of others, or in other
// namespaces.

// helpers are by the first argument, and get the others.
var helpers = map[string]func(args ...string) error{
	pullFlag:   func(args ...string) error { return two(pullOnly, args) },
	bridgeFlag: func(args ...string) error { return two(bridgeOnly, args) },
	clientFlag: func(args ...string) error { return two(trafficClient, append(args, "")) },
	serverFlag: func(args ...string) error { return two(trafficServer, append(args, "")) },
	egressFlag: func(args ...string) error { return two(egressOnly, args) },
	portFlag:   func(args ...string) error { return two(portOnly, args) },
}

func two(f func(a, b string) error, args []string) error {
	if len(args) != 2 {
		return errors.New("wrong arguments")
	}
	return f(args[0], args[1])
}

// help does what the arguments say, and ends the program; it returns if they name no helper.
func help() {
	if len(os.Args) < 2 || helpers[os.Args[1]] == nil {
		return
	}
	if err := helpers[os.Args[1]](os.Args[2:]...); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
