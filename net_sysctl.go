//go:build linux

package container

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// This file reads and writes parameters of network devices. They are those of the network namespace of the calling thread. It runs in the
// caller's process.

// deviceParameter is the path of a parameter of a device. Family is "ipv4" or "ipv6".
func deviceParameter(family, device, name string) string {
	return "/proc/sys/net/" + family + "/conf/" + device + "/" + name
}

// setDeviceParameter sets a parameter to a value, if it has another: it may be that it can only be read here.
func setDeviceParameter(family, device, name, value string) error {
	path := deviceParameter(family, device, name)
	now, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(now)) == value {
		return nil
	}
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			_, err = f.WriteString(value)
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		e := &Error{Op: "network parameter", Path: path, Err: err}
		if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
			e.Remedy = "setting up bridges needs CAP_NET_ADMIN and a /proc/sys that can be written to"
		}
		return e
	}
	return nil
}

// setIfThere sets a parameter that not all kernels have.
func setIfThere(family, device, name, value string) error {
	err := setDeviceParameter(family, device, name, value)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// parameterIs tells whether a parameter is there and has a value.
func parameterIs(family, device, name, value string) bool {
	text, err := os.ReadFile(deviceParameter(family, device, name))
	return err == nil && strings.TrimSpace(string(text)) == value
}

// quietIPv6 keeps a device from making addresses for itself and from believing routers, before it is up. With off it has no IPv6 at all. Addresses
// are used at once: who has which is ours to know.
func quietIPv6(device string, off bool) error {
	if !haveIPv6() {
		return nil
	}
	if off {
		return setDeviceParameter("ipv6", device, "disable_ipv6", "1")
	}
	for _, p := range [...][2]string{{"accept_ra", "0"}, {"autoconf", "0"}, {"accept_dad", "0"}, {"accept_redirects", "0"}} {
		if err := setDeviceParameter("ipv6", device, p[0], p[1]); err != nil {
			return err
		}
	}
	return setDeviceParameter("ipv6", device, "disable_ipv6", "0")
}
