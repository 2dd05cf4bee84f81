package testenv

import (
	"debug/elf"
	"os"
	"path/filepath"
)

// This file asks for programs.

// Registry is a program that serves an image registry on a port of the loopback interface.
var Registry = Requirement{Name: "registry", Probe: Program("docker-registry", "docker-registry").Probe}

// Nft is the front end of nftables.
var Nft = Program("nft", "nftables")

// Tmux is a terminal multiplexer: a terminal whose screen a test can read.
var Tmux = Program("tmux", "tmux")

// Podman is a client of OCI runtimes, with what it needs to run containers.
var Podman = Requirement{Name: "podman", Probe: func() error {
	for _, p := range []struct{ name, pkg string }{{"podman", "podman"}, {"conmon", "conmon"}} {
		if err := Program(p.name, p.pkg).Probe(); err != nil {
			return err
		}
	}
	if LookPath("catatonit") == "" { // its --init
		if _, err := os.Stat("/usr/libexec/podman/catatonit"); err != nil {
			return missing(install("catatonit"), "there is no program catatonit")
		}
	}
	return nil
}}

// Program requires a program in PATH or in a directory for administrators, which an ordinary
// user's PATH often lacks. pkg is the Debian package that has it; the requirement's name is the
// program's.
func Program(name, pkg string) Requirement {
	return Requirement{Name: name, Probe: func() error {
		if LookPath(name) == "" {
			return missing(install(pkg), "there is no program %s", name)
		}
		return nil
	}}
}

// LookPath returns the path of a program that Program would find, or "".
func LookPath(name string) string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, dir := range append(dirs, "/usr/local/sbin", "/usr/sbin", "/sbin") {
		if !filepath.IsAbs(dir) {
			continue // a program of the working directory is nobody's requirement
		}
		path := filepath.Join(dir, name)
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// StaticBusybox requires a busybox that needs no libraries: the usual inhabitant of a root
// directory made for a test.
var StaticBusybox = Requirement{Name: "busybox", Probe: func() error {
	path := LookPath("busybox")
	if path == "" {
		return missing(install("busybox-static"), "there is no busybox")
	}
	if needsLoader(path) {
		return missing(install("busybox-static"), "%s is not statically linked", path)
	}
	return nil
}}

// StaticTest requires that the test binary itself is statically linked: the test runs it in a container that has no libraries.
var StaticTest = Requirement{Name: "static", Probe: func() error {
	if needsLoader("/proc/self/exe") {
		return missing("CGO_ENABLED=0 go test", "the test binary needs libraries")
	}
	return nil
}}

// needsLoader tells whether a program is dynamically linked, or no ELF file at all.
func needsLoader(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return true
		}
	}
	return false
}
