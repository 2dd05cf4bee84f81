//go:build linux

package container

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// busyboxRoot makes a root file system of busybox in a directory.
func busyboxRoot(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs busybox: apt-get install busybox-static")
	}
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), text, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "id", "cat", "ls", "true", "false", "hostname", "ps", "mount", "touch", "sleep", "env", "pwd", "mkdir", "echo", "stat", "readlink", "ulimit", "nice", "grep", "rm", "kill", "ip", "test", "cp", "find", "od", "dd", "wc", "sort", "mknod", "chmod", "head"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	etc := map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var/www:/bin/sh\n",
		"group":  "root:x:0:\nwww:x:33:\nextra:x:44:www\n",
	}
	for name, text := range etc {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func runIn(t *testing.T, cfg Config, p *Process) (stdout string, err error) {
	t.Helper()
	c, err := New(t.TempDir(), "test", cfg)
	if err != nil {
		return "", err
	}
	defer func() {
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	}()
	var out bytes.Buffer
	if p.Stdout == nil {
		p.Stdout = &out
	}
	if p.Stderr == nil {
		p.Stderr = &out
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.Run(ctx, p); err != nil {
		return out.String(), err
	}
	err = c.Wait()
	return out.String(), err
}

func TestFirst(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Root = Directory(busyboxRoot(t))
	out, err := runIn(t, cfg, &Process{Args: []string{"sh", "-c", "id; hostname; ps; mount; ls -l /dev /proc/self/fd /; env; pwd"}})
	t.Log(out, err)
	if err != nil {
		t.Fail()
	}
}

func TestHostRootFirst(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Root = HostRoot
	out, err := runIn(t, cfg, &Process{Args: []string{"sh", "-c", "id; ls -l /; touch /etc/x /x /usr/y && echo wrote; ls /run; mount | grep overlay"}})
	t.Log(out, err)
	if err != nil {
		t.Fail()
	}
}

func TestCopyOnWriteFirst(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Root = Root{Dir: busyboxRoot(t), Access: CopyOnWrite}
	out, err := runIn(t, cfg, &Process{Args: []string{"sh", "-c", "touch /etc/x /x && echo wrote; mount | grep overlay"}})
	t.Log(out, err)
	if err != nil {
		t.Fail()
	}
}

func TestNotFoundFirst(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Root = Root{Dir: busyboxRoot(t), Access: CopyOnWrite}
	out, err := runIn(t, cfg, &Process{Args: []string{"nope"}})
	t.Log(out, err)
	out, err = runIn(t, cfg, &Process{Args: []string{"/etc/passwd"}})
	t.Log(out, err)
	out, err = runIn(t, cfg, &Process{Args: []string{"/etc"}})
	t.Log(out, err)
	out, err = runIn(t, cfg, &Process{Args: []string{"sh", "-c", "kill -9 $$"}})
	t.Log(out, err)
	out, err = runIn(t, cfg, &Process{Args: []string{"sh", "-c", "exit 3"}})
	t.Log(out, err)
}

func BenchmarkRun(b *testing.B) {
	root := busyboxRoot(b)
	cfg := DefaultConfig()
	cfg.Root = Directory(root)
	cfg.Namespaces.NewUser = false
	dir := b.TempDir()
	for b.Loop() {
		c, err := New(dir, "bench", cfg)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Run(context.Background(), &Process{Args: []string{"/bin/true"}}); err != nil {
			b.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			b.Fatal(err)
		}
		if err := c.Destroy(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRunRootless(b *testing.B) {
	root := busyboxRoot(b)
	cfg := DefaultConfig()
	cfg.Root = Directory(root)
	dir := b.TempDir()
	for b.Loop() {
		c, err := New(dir, "bench", cfg)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Run(context.Background(), &Process{Args: []string{"/bin/true"}}); err != nil {
			b.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			b.Fatal(err)
		}
		if err := c.Destroy(); err != nil {
			b.Fatal(err)
		}
	}
}
