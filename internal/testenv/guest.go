//go:build linux

package testenv

import (
	"bytes"
	"context"
	"flag"
	"os"
	"strings"
	"sync"
	"time"

	"example.com/container/internal/guest"
)

// GuestVar is the environment variable that names the guest which tests run in; see TestGuest.
const GuestVar = "CONTAINER_GUEST"

// Guest is an emulated machine for other kernels: qemu, and an image that is there or can be made,
// of Debian's packages. It takes minutes, and is there only for a run of tests that asks for it.
var Guest = Requirement{Name: "guest", Probe: sync.OnceValue(func() error {
	if name := os.Getenv(GuestVar); name != "" {
		return missing("run it on the host", "this is the guest %s", name)
	}
	if err := guest.Missing(); err != nil {
		return err
	}
	if run := flag.Lookup("test.run"); !must(os.Getenv(MustVar), "guest") && (run == nil || !strings.Contains(run.Value.String(), "Guest")) {
		return missing("go test -run Guest", "it takes minutes")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var log bytes.Buffer
	if _, err := guest.Build(ctx, &log); err != nil {
		return missing("see what mmdebstrap says", "%v:\n%s", err, log.String())
	}
	return nil
})}
