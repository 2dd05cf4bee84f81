//go:build !linux

package container

import "runtime"

// Check tells what this host and this user can do. Only Linux has containers.
func Check() []CheckResult {
	return []CheckResult{{
		Name:   "kernel",
		Detail: runtime.GOOS + " has no containers",
		Remedy: "run the program on Linux, for instance in a virtual machine",
	}}
}
