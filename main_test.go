//go:build linux

package container

import (
	"os"
	"testing"

	"example.com/container/internal/leak"
)

// TestMain runs all tests of the package between two looks at what is there: descriptors, mounts,
// processes, cgroups, interfaces, files.
func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }
