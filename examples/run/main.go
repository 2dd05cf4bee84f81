// Run runs an image, which it pulls if it is not there.
//
//	go run ./examples/run 127.0.0.1:5000/debian:latest cat /etc/os-release
//
// IMAGE is a reference, oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE[:TAG] or dir:DIR. The
// container has no network but lo. What it changes is gone when it ends, but for a dir:DIR.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"example.com/container"
	"example.com/container/examples/internal/cli"
	"github.com/google/go-containerregistry/pkg/authn"
)

func main() { os.Exit(run()) }

func run() int {
	var mounts cli.Mounts
	var env cli.Strings
	store := flag.String("store", "", "`directory` of the images (default: that of this user)")
	pull := flag.String("pull", "missing", "when to ask the registry: always, missing or never")
	user := flag.String("u", "", "`user[:group]` to run as (default: the image's)")
	workDir := flag.String("w", "", "working `directory` (default: the image's)")
	readOnly := flag.Bool("read-only", false, "make the root read-only")
	explain := flag.Bool("explain", false, "print the system calls that would start it, and start nothing")
	flag.Var(&mounts, "v", "bind `SRC:DST[:OPTIONS]`, for example ./data:/data:ro; can be given several times")
	flag.Var(&env, "e", "environment variable `KEY=VALUE`; can be given several times")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: run [FLAG]... IMAGE [ARG]...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		return 125
	}
	policy := container.PullPolicy(*pull)
	if policy == "missing" {
		policy = container.PullMissing
	}
	img, cfg, err := open(*store, flag.Arg(0), policy)
	if err != nil {
		return cli.Fail("run", err)
	}
	if *readOnly {
		cfg.Root.Access = container.ReadOnly
	}
	cfg.Mounts = append(cfg.Mounts, mounts...)
	cfg.DieWithParent = true
	if img.Config.StopSignal != "" {
		if cfg.StopSignal, err = container.ParseSignal(img.Config.StopSignal); err != nil {
			return cli.Fail("run", err)
		}
	}

	p := img.Process(flag.Args()[1:]...)
	p.Env = append(p.Env, env...)
	if *user != "" {
		p.User = *user
	}
	if *workDir != "" {
		p.Cwd = *workDir
	}
	if len(p.Args) == 0 {
		p.Args = []string{"/bin/sh"}
	}
	if *explain {
		text, err := container.Explain(cfg, p)
		if err != nil {
			return cli.Fail("run", err)
		}
		fmt.Print(text)
		return 0
	}
	return cli.Run("run", cfg, p)
}

// open opens the image, and returns it with the configuration of a container for it.
func open(dir, source string, policy container.PullPolicy) (*container.Image, container.Config, error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cfg := container.DefaultConfig()
	store, err := container.OpenStore(dir, nil)
	if err != nil {
		return nil, cfg, err
	}
	defer store.Close()
	bar := newProgress(os.Stderr)
	img, err := store.Open(ctx, source, &container.PullOptions{
		Policy:   policy,
		Keychain: authn.DefaultKeychain, // what docker login or podman login have written
		Progress: bar.update,
	})
	bar.finish()
	if err != nil {
		return nil, cfg, err
	}
	cfg.Root = img.Root()
	cfg.UidMappings, cfg.GidMappings = store.IDMappings()
	return img, cfg, nil
}
