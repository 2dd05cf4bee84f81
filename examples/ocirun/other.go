//go:build !linux

// Ocirun is an OCI runtime. It needs Linux.
package main

import (
	"fmt"
	"os"

	"example.com/container"
)

func main() {
	fmt.Fprintln(os.Stderr, "ocirun:", container.ErrUnsupported)
	os.Exit(1)
}
