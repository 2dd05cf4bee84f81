// Sandbox runs a command on this machine's own files, without a network. What it changes is gone when
// it ends.
//
//	go run ./examples/sandbox -- sh -c 'id; hostname; ps; touch /etc/x && echo changed only in here'
//	go run ./examples/sandbox -net allow=example.com:443 -- curl https://example.com
//	go run ./examples/sandbox -p 127.0.0.1:8080:80 -- busybox httpd -f -p 80
//
// The command sees the host's / copy-on-write, an empty /tmp, and of the environment PATH, HOME,
// TERM and LANG. With -rw it may write to the current directory, with -net connect to what is allowed, and with -p be reached. Without a command it
// is a shell.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"example.com/container"
	"example.com/container/examples/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	var mounts cli.Mounts
	rw := flag.Bool("rw", false, "let the command write to the current directory")
	workDir := flag.String("w", "", "working `directory` (default: the current one)")
	network := netFlags()
	flag.Var(&mounts, "v", "bind `SRC:DST[:OPTIONS]`, for example ./data:/data:ro; can be given several times")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: sandbox [-rw] [-v SRC:DST[:OPTIONS]]... [-w DIR] [-net MODE] [-p PORTS]... [--] [COMMAND...]")
		flag.PrintDefaults()
	}
	flag.Parse()

	cwd, err := os.Getwd()
	if err == nil {
		cwd, err = filepath.EvalSymlinks(cwd)
	}
	if err != nil {
		return cli.Fail("sandbox", err)
	}
	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot
	cfg.Hostname = "sandbox"
	cfg.DieWithParent = true
	network.apply(&cfg)
	cfg.Mounts = append(cfg.Mounts, container.Mount{Type: "tmpfs", Target: "/tmp", Flags: container.NoSuid | container.NoDev, Data: "mode=1777"})
	cfg.Mounts = append(cfg.Mounts, visible(cwd, *rw)...)
	cfg.Mounts = append(cfg.Mounts, mounts...)

	p := &container.Process{Args: flag.Args(), Env: environment("PATH", "HOME", "TERM", "LANG"), Cwd: *workDir}
	if len(p.Args) == 0 {
		p.Args = []string{shell()}
	}
	if p.Cwd == "" {
		p.Cwd = cwd
	}
	return cli.Run("sandbox", cfg, p)
}

// visible returns the mounts that the current directory and the home directory need: most are part
// of the host's tree, where changes are thrown away. What lies below /tmp or /run is not, and is
// shown read-only.
func visible(cwd string, rw bool) []container.Mount {
	var mounts []container.Mount
	home, _ := os.UserHomeDir()
	for _, dir := range []string{home, cwd} {
		m := container.Mount{Type: "bind", Source: dir, Target: dir, Flags: container.Recursive, Optional: true}
		switch {
		case dir == cwd && rw:
			mounts = append(mounts, m)
		case below(dir, "/tmp") || below(dir, "/run"):
			m.Flags |= container.MountReadOnly
			mounts = append(mounts, m)
		}
	}
	return mounts
}

// below tells whether dir is in the tree, and not its top.
func below(dir, tree string) bool {
	rel, err := filepath.Rel(tree, dir)
	return err == nil && rel != "." && filepath.IsLocal(rel)
}

// environment is what there is of these variables.
func environment(names ...string) []string {
	var env []string
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func shell() string {
	if sh := os.Getenv("SHELL"); filepath.IsAbs(sh) {
		return sh
	}
	return "/bin/sh"
}
