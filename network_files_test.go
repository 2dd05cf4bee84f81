//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file looks at hosts, resolv.conf and hostname in containers whose roots have the worst in their place.

// filesNetwork is a network without devices, and with files of ours.
func filesNetwork() *NetworkConfig {
	return &NetworkConfig{DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")}, DNSSearch: []string{"example.com"}, DNSOptions: []string{"ndots:2"},
		Hosts: []HostEntry{{netip.MustParseAddr("192.0.2.7"), []string{"seven", "7.example.com"}}}}
}

const (
	wantHosts  = localHosts + "127.0.1.1\tboxed life\n192.0.2.7\tseven 7.example.com\n"
	wantResolv = "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch example.com\noptions ndots:2\n"
)

// filesOutput runs a script in a container, and returns what it prints.
func filesOutput(t *testing.T, cfg Config, script string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	p := lifeSh(script)
	p.Stdout, p.Stderr = &out, &out
	c := lifeNew(t, cfg)
	if err := c.Run(context.Background(), p); err != nil {
		return "", err
	}
	err := lifeWait(t, c.Wait)
	var exit *ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return out.String(), err
}

func TestNetworkFiles(t *testing.T) {
	leak.Check(t)
	const show = "cat /etc/hosts /etc/resolv.conf /etc/hostname"
	for name, c := range map[string]struct {
		change func(t *testing.T, cfg *Config, root, secret string)
		script string
		want   string
	}{
		"missing": {nil, show, wantHosts + wantResolv + "boxed\n"},
		"no /etc": {func(t *testing.T, cfg *Config, root, _ string) { os.RemoveAll(root + "/etc") }, show, wantHosts + wantResolv + "boxed\n"},
		"there": {func(t *testing.T, cfg *Config, root, _ string) {
			writeTree(t, root, map[string]string{"etc/hosts": "old"})
		}, show, wantHosts + wantResolv + "boxed\n"},
		"read-only": {func(t *testing.T, cfg *Config, root, _ string) { cfg.Root.Access = ReadOnly }, "echo x >/etc/hosts; echo x >/etc/x; cat /etc/hostname", "sh: can't create /etc/hosts: Read-only file system\nsh: can't create /etc/x: Read-only file system\nboxed\n"},
		"copy":      {func(t *testing.T, cfg *Config, root, _ string) { cfg.Root.Access = CopyOnWrite }, show, wantHosts + wantResolv + "boxed\n"},
		"link out": {func(t *testing.T, cfg *Config, root, secret string) {
			link(t, "../../../../../../../../../../.."+secret, root+"/etc/resolv.conf")
			link(t, secret, root+"/etc/hosts")
		}, show + "; echo more >>/etc/hosts; echo more >>/etc/resolv.conf", wantHosts + wantResolv + "boxed\n"},
		"link inside": {func(t *testing.T, cfg *Config, root, _ string) { link(t, "passwd", root+"/etc/resolv.conf") }, "head -1 /etc/passwd; cat /etc/resolv.conf", "root:x:0:0:root:/root:/bin/sh\n" + wantResolv},
		"dangling": {func(t *testing.T, cfg *Config, root, _ string) {
			link(t, "../run/none/resolv.conf", root+"/etc/resolv.conf")
		}, "cat /etc/resolv.conf", wantResolv},
		"loop": {func(t *testing.T, cfg *Config, root, _ string) { link(t, "resolv.conf", root+"/etc/resolv.conf") }, "cat /etc/resolv.conf", wantResolv},
		"/etc a link": {func(t *testing.T, cfg *Config, root, _ string) {
			os.Mkdir(root+"/usr", 0o755)
			if err := os.Rename(root+"/etc", root+"/usr/etc"); err != nil {
				t.Fatal(err)
			}
			link(t, "/../../usr/etc", root+"/etc")
		}, show, wantHosts + wantResolv + "boxed\n"},
		"removal": {nil, "rm /etc/hosts; mv /etc/hosts /etc/x; echo x >>/etc/hostname && cat /etc/hostname", "rm: can't remove '/etc/hosts': Device or resource busy\nmv: can't rename '/etc/hosts': Device or resource busy\nboxed\nx\n"},
		"own mount": {func(t *testing.T, cfg *Config, root, secret string) {
			cfg.Mounts = append(cfg.Mounts, Mount{Type: "bind", Source: secret, Target: "/etc/hosts", Flags: MountReadOnly})
		}, "cat /etc/hosts /etc/resolv.conf", "secret\n" + wantResolv},
		"kept": {func(t *testing.T, cfg *Config, root, _ string) {
			cfg.Network = &NetworkConfig{KeepFiles: true}
			writeTree(t, root, map[string]string{"etc/hosts": "own\n"})
		}, "cat /etc/hosts; ls /etc", "own\ngroup\nhosts\npasswd\n"},
		"host root":           {func(t *testing.T, cfg *Config, root, _ string) { cfg.Root = HostRoot }, show, wantHosts + wantResolv + "boxed\n"},
		"host root read-only": {func(t *testing.T, cfg *Config, root, _ string) { cfg.Root = Root{Dir: "/", Access: ReadOnly} }, show, wantHosts + wantResolv + "boxed\n"},
		"umask":               {nil, "stat -c '%a %u' /etc/hosts /etc/hostname", "644 0\n644 0\n"},
		"none": {func(t *testing.T, cfg *Config, root, _ string) { cfg.Network, cfg.Hostname = &NetworkConfig{}, "" },
			"cat /etc/hosts; wc -c </etc/resolv.conf; hostname | cmp - /etc/hostname && echo same", localHosts + "127.0.1.1\tlife\n0\nsame\n"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, root := lifeConfig(t)
			cfg.Hostname, cfg.Network = "boxed", filesNetwork()
			secret := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(secret, []byte("secret\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				c.change(t, &cfg, root, secret)
			}
			before := filesOf(t, root)
			got, err := filesOutput(t, cfg, c.script)
			if err != nil || got != c.want {
				t.Errorf("%v; it prints\n%s\nand not\n%s", err, got, c.want)
			}
			if text, err := os.ReadFile(secret); err != nil || string(text) != "secret\n" {
				t.Errorf("the host's file is now %q, %v", text, err)
			}
			for file, text := range before {
				if now := filesOf(t, root)[file]; now != text {
					t.Errorf("%s of the root was %q and is %q", file, text, now)
				}
			}
		})
	}
}

// filesOf are the files and links in the /etc of a root.
func filesOf(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, _ := os.ReadDir(root + "/etc")
	for _, e := range entries {
		path := root + "/etc/" + e.Name()
		if to, err := os.Readlink(path); err == nil {
			files[e.Name()] = "-> " + to
		} else if text, err := os.ReadFile(path); err == nil {
			files[e.Name()] = string(text)
		}
	}
	return files
}

func link(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

// TestNetworkFilesRefused has roots in which there is no place for the files: nothing runs.
func TestNetworkFilesRefused(t *testing.T) {
	leak.Check(t)
	for name, c := range map[string]struct {
		change func(root string) error
		want   error
	}{
		"/etc is /proc":   {func(root string) error { return os.Symlink("/proc", root+"/etc") }, unix.EXDEV},
		"/etc in /sys":    {func(root string) error { return os.Symlink("/sys/kernel", root+"/etc") }, unix.EXDEV},
		"/etc is a file":  {func(root string) error { return os.WriteFile(root+"/etc", nil, 0o644) }, unix.ENOTDIR},
		"/etc is magic":   {func(root string) error { return os.Symlink("/proc/self/cwd", root+"/etc") }, unix.ELOOP},
		"a directory":     {func(root string) error { return os.MkdirAll(root+"/etc/resolv.conf", 0o755) }, unix.EINVAL},
		"/etc is nowhere": {func(root string) error { return os.Symlink("/none", root+"/etc") }, unix.ENOENT},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, root := lifeConfig(t)
			cfg.Network = filesNetwork()
			if err := errors.Join(os.RemoveAll(root+"/etc"), c.change(root)); err != nil {
				t.Fatal(err)
			}
			out, err := filesOutput(t, cfg, "echo runs")
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, c.want) || e.Op != "hosts and names" || !strings.HasPrefix(e.Path, "/etc") || out != "" {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
}

func TestResolvConf(t *testing.T) {
	host := func() ResolvConf {
		return parseResolvConf("# x\nnameserver 127.0.0.53 # y\n nameserver\t192.0.2.1\nnameserver fe80::1%eth0\nnameserver x\nnameserver\ndomain a.example\nsearch b.example. c;d ../x\noptions ndots:1\noptions edns0 a=b\n")
	}
	for name, c := range map[string]struct {
		n    NetworkConfig
		want string
	}{
		"none":        {NetworkConfig{}, ""},
		"host":        {NetworkConfig{Mode: NetworkModeHost}, "nameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch b.example. c\noptions ndots:1 edns0\n"},
		"bridge":      {NetworkConfig{Mode: NetworkModeBridge}, "nameserver 192.0.2.1\n"},
		"macvlan":     {NetworkConfig{Mode: NetworkModeMacvlan}, ""},
		"egress":      {NetworkConfig{Mode: NetworkModeEgress, DNS: []netip.Addr{netip.MustParseAddr("192.0.2.9")}, DNSSearch: []string{"x"}}, "nameserver 127.0.0.11\nsearch x\n"},
		"name server": {NetworkConfig{Mode: NetworkModeBridge, NameServer: true}, "nameserver 127.0.0.11\n"},
		"given":       {NetworkConfig{Mode: NetworkModeBridge, DNS: []netip.Addr{netip.MustParseAddr("192.0.2.9")}}, "nameserver 192.0.2.9\n"},
	} {
		if got := string(c.n.resolvConf(host).text()); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestWriteHosts(t *testing.T) {
	dir := t.TempDir()
	link(t, "/etc/none", dir+"/hosts")
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if f, err := root.Create("hosts"); err == nil {
		f.Close()
		t.Error("a link out of the root is followed")
	}
	var b bytes.Buffer
	if err := WriteHosts(&b, []HostEntry{{netip.MustParseAddr("192.0.2.1"), []string{"a", "b"}}}); err != nil || b.String() != localHosts+"192.0.2.1\ta b\n" {
		t.Errorf("%v, %q", err, b.String())
	}
	b.Reset()
	if err := WriteHosts(&b, []HostEntry{{netip.MustParseAddr("192.0.2.1"), []string{"a\n192.0.2.2 b"}}, {}}); !errors.Is(err, ErrInvalidConfig) || b.Len() > 0 {
		t.Errorf("%v, %q", err, b.String())
	}
	if err := WriteResolvConf(&b, ResolvConf{Search: []string{"a b"}}); !errors.Is(err, ErrInvalidConfig) || b.Len() > 0 {
		t.Errorf("%v, %q", err, b.String())
	}
	if err := WriteResolvConf(&b, ResolvConf{Servers: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}, Search: []string{"a"}, Options: []string{"x:1"}}); err != nil || b.String() != "nameserver fe80::1%eth0\nsearch a\noptions x:1\n" {
		t.Errorf("%v, %q", err, b.String())
	}
}

// FuzzParseResolvConf: whatever a host has, what is made of it is text that means the same.
func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 127.0.0.1\nsearch a b\noptions ndots:2\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := parseResolvConf(text)
		if again := parseResolvConf(string(c.text())); string(again.text()) != string(c.text()) {
			t.Fatalf("%q becomes %q, and that %q", text, c.text(), again.text())
		}
	})
}
