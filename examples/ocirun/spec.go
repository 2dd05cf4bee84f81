//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"example.com/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file makes a bundle's config.json to start from.

func specCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	var bundle string
	var rootless bool
	f.StringVar(&bundle, "bundle", "", "`directory` of the bundle (default: the current one)")
	f.StringVar(&bundle, "b", "", "`directory` of the bundle")
	f.BoolVar(&rootless, "rootless", false, "make a configuration for an ordinary user")
	return func([]string) (int, error) {
		spec, err := template(rootless)
		if err != nil {
			return 1, err
		}
		text, err := json.MarshalIndent(spec, "", "\t")
		if err != nil {
			return 1, err
		}
		path := filepath.Join(bundle, "config.json")
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, os.ErrExist) {
			return 1, fmt.Errorf("File config.json exists. Remove it first") //nolint:staticcheck // runc's words
		}
		if err != nil {
			return 1, err
		}
		_, err = file.Write(text)
		if err := errors.Join(err, file.Close()); err != nil {
			return 1, err
		}
		return 0, nil
	}
}

// template is the package's default container: isolated, few capabilities, no network.
func template(rootless bool) (*specs.Spec, error) {
	cfg := container.DefaultConfig()
	cfg.Root = container.Root{Dir: "/rootfs", Access: container.ReadOnly}
	cfg.Hostname = "ocirun"
	cfg.Namespaces.NewUser = rootless
	cfg.DevicesOnly = !rootless
	cfg.Rlimits = []container.Rlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 1024}}
	p := &container.Process{
		Args: []string{"sh"},
		Env:  []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"},
	}
	spec, err := container.ToSpec(cfg, p)
	if err != nil {
		return nil, err
	}
	spec.Root.Path = "rootfs"
	return spec, nil
}
