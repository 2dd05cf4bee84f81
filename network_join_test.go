//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/container/internal/leak"
)

// This file runs containers in the network of others.

// networkOf is a configuration with the network of the container "other".
func networkOf(cfg Config) Config {
	cfg.Network = &NetworkConfig{Mode: NetworkModeContainer, Container: "other"}
	cfg.Namespaces.NewNet = false
	return cfg
}

func TestNetworkOfContainer(t *testing.T) {
	leak.Check(t)
	ctx := context.Background()
	for name, change := range map[string]func(cfg *Config){
		"default":  func(*Config) {},
		"none":     func(cfg *Config) { cfg.Network = filesNetwork() },
		"detached": func(cfg *Config) { cfg.Detached = true },
		"user": func(cfg *Config) {
			cfg.Namespaces.NewUser = true
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, root := lifeConfig(t)
			dir := filepath.Join(t.TempDir(), "state")
			change(&cfg)
			other, err := New(dir, "other", cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Destroy()
			its := networkOf(cfg)
			its.Root = Directory(root)
			c, err := New(dir, "c", its)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Destroy()
			p := lifeSh("cat /etc/resolv.conf; readlink /proc/self/ns/net; ls /sys/class/net; sleep 1000")
			if err := c.Run(ctx, p); !errors.Is(err, ErrNotRunning) {
				t.Fatalf("the other has not been started: %v", err)
			}
			if err := other.Create(ctx, lifeSh("sleep 1000")); err != nil {
				t.Fatal(err)
			}
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer read.Close()
			p = &Process{Args: p.Args, Stdout: write, Stderr: write}
			err = c.Run(ctx, p)
			write.Close()
			if err != nil {
				t.Fatal(err)
			}
			text := ""
			for buf := make([]byte, 1000); !strings.HasSuffix(text, "lo\n"); {
				n, err := read.Read(buf)
				if err != nil {
					break
				}
				text += string(buf[:n])
			}
			one, _ := os.Readlink(namespacePath(other.Pid(), NetworkNamespace))
			two, _ := os.Readlink(namespacePath(c.Pid(), NetworkNamespace))
			own, _ := os.Readlink("/proc/self/ns/net")
			want := one + "\nlo\n"
			if name == "none" {
				want = wantResolv + want
			}
			if one != two || one == own || text != want {
				t.Errorf("networks %s and %s; it says %q", one, two, text)
			}
			if err := other.Start(ctx); err != nil {
				t.Error(err)
			}
			out := &strings.Builder{}
			if err := c.Exec(ctx, &Process{Args: []string{"readlink", "/proc/self/ns/net"}, Stdout: out}); err != nil {
				t.Error(err)
			}
			stats, err := c.InterfaceStats()
			if err != nil || len(stats) != 1 || stats[0].Name != "lo" {
				t.Errorf("%+v, %v", stats, err)
			}
			if err := other.Destroy(); err != nil { // the network stays for who is in it
				t.Fatal(err)
			}
			if status, err := c.Status(); err != nil || status != StatusRunning {
				t.Errorf("%v, %v", status, err)
			}
			if err := c.Destroy(); err != nil {
				t.Fatal(err)
			}
			if _, err := c.InterfaceStats(); err == nil {
				t.Error("there are numbers of what is gone")
			}
		})
	}
}

func TestNetworkOfContainerRefused(t *testing.T) {
	leak.Check(t)
	ctx := context.Background()
	cfg, _ := lifeConfig(t)
	dir := filepath.Join(t.TempDir(), "state")
	c, err := New(dir, "c", networkOf(cfg))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	var e *Error
	if err := c.Run(ctx, lifeSh("true")); !errors.Is(err, ErrNotExist) || !errors.As(err, &e) || e.Remedy == "" || e.Path != "other" {
		t.Errorf("%v", err)
	}
	other, err := New(dir, "other", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Destroy()
	if err := other.Run(ctx, lifeSh("true")); err != nil {
		t.Fatal(err)
	}
	other.Wait()
	if err := c.Run(ctx, lifeSh("true")); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
	own := networkOf(cfg)
	own.Network.Container = "own"
	c, err = New(dir, "own", own)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	if err := c.Run(ctx, lifeSh("true")); !errors.Is(err, ErrInvalidConfig) {
		t.Errorf("%v", err)
	}
	// What it has as ids is not what the other has.
	third, err := New(dir, "third", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Destroy()
	if err := third.Run(ctx, lifeSh("sleep 1000")); err != nil {
		t.Fatal(err)
	}
	mapped := networkOf(cfg)
	mapped.Network.Container, mapped.Namespaces.NewUser = "third", true
	mapped.UidMappings, mapped.GidMappings = []IDMap{pureMap(5, os.Getuid()+1, 1)}, []IDMap{pureMap(5, os.Getgid()+1, 1)}
	c, err = New(dir, "mapped", mapped)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	if err := c.Run(ctx, lifeSh("true")); err == nil || !errors.Is(err, ErrInvalidConfig) {
		t.Errorf("%v", err)
	}
}
