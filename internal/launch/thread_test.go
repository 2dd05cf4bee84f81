//go:build linux

package launch

import "runtime"

func lockThread() { runtime.LockOSThread() }
