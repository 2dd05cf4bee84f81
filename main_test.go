//go:build linux

package container

import (
	"os"
	"testing"

	"example.com/container/internal/leak"
)

// TestMain runs all tests of the package between two looks at what is there: descriptors, mounts,
// processes, cgroups, interfaces, files.
func TestMain(m *testing.M) {
	if os.Getenv("CONTAINER_PURE_DIR") != "" { // a stage of a test, in namespaces that end with it
		os.Exit(m.Run())
	}
	os.Exit(leak.Main(m))
}
