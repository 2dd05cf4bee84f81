//go:build linux

package guest

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// This file finds out whether the machine has hardware to run a guest on.

// accelerator returns kvm if a guest gets to its first program with it, and tcg otherwise. That
// /dev/kvm can be opened is not enough: there are machines where a guest then hangs.
func accelerator(ctx context.Context, image string) string {
	accel.Do(func() {
		// With KVM that takes less than a second.
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		accel.name = "tcg"
		var output bytes.Buffer
		kernel := kernels[0].series
		err := qemu(ctx, &output, append(accelOptions("kvm"),
			"-M", "q35", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot",
			"-serial", "null", "-serial", "stdio",
			"-kernel", filepath.Join(image, "vmlinuz-"+kernel),
			"-initrd", filepath.Join(image, "initrd-"+kernel),
			"-append", "console=ttyS0 quiet panic=-1 guest_probe=1")...)
		if err == nil && strings.Contains(output.String(), "works") {
			accel.name = "kvm"
		}
	})
	return accel.name
}

// accel is what accelerator has found out in this process.
var accel struct {
	sync.Once
	name string
}

// accelOptions returns the options of qemu.
func accelOptions(accel string) []string {
	if accel == "kvm" {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	// One thread for both processors: with a thread for each a guest kernel dies now and then, when
	// it changes its own code at boot. A processor with more features is slower to emulate.
	return []string{"-accel", "tcg,thread=single", "-cpu", "qemu64"}
}
