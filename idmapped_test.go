//go:build linux

package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/container/internal/testenv"
)

// As root with maps of its own, a container sees the files of an image with the owners that the image
// gave them, though nothing on disk was changed and its root is another user on the host.
func TestIdmappedLayersAndBinds(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.UserNS, testenv.Overlay)
	lower := busyboxRoot(t)
	upper := t.TempDir()
	for name, id := range map[string]int{"mine": 0, "www": 33} {
		file := filepath.Join(upper, name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(file, id, id); err != nil {
			t.Fatal(err)
		}
	}
	maps := []IDMap{{ContainerID: 0, HostID: 200000, Size: 65536}}
	cfg := DefaultConfig()
	cfg.UidMappings, cfg.GidMappings = maps, maps
	cfg.Root = Root{Layers: []string{lower, upper}}
	cfg.Mounts = append(cfg.Mounts, Mount{Type: "bind", Source: upper, Target: "/mapped", UidMappings: maps, GidMappings: maps},
		Mount{Type: "bind", Source: upper, Target: "/plain"})
	out, err := runIn(t, cfg, &Process{Args: []string{"sh", "-c", "stat -c '%n %u:%g' /mine /www /mapped/www /plain/www; echo x >/mapped/mine && echo x >/new && stat -c '%n %u:%g' /new"}})
	want := "/mine 0:0\n/www 33:33\n/mapped/www 33:33\n/plain/www 65534:65534\n/new 0:0\n"
	if err != nil || out != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
	if text, err := os.ReadFile(filepath.Join(upper, "mine")); err != nil || strings.TrimSpace(string(text)) != "x" {
		t.Errorf("the bind was not written through: %q, %v", text, err)
	}
}

// A directory root behind a directory that only the caller may enter.
func TestForeignRootInPrivateDirectory(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.UserNS)
	root := busyboxRoot(t)
	for _, d := range []string{"proc", "sys", "dev"} { // nobody inside owns the directory, so nothing can be made in it
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(root), 0o700); err != nil {
		t.Fatal(err)
	}
	maps := []IDMap{{ContainerID: 0, HostID: 200000, Size: 65536}}
	cfg := DefaultConfig()
	cfg.UidMappings, cfg.GidMappings = maps, maps
	cfg.Root = Directory(root)
	out, err := runIn(t, cfg, &Process{Args: []string{"sh", "-c", "cat /proc/self/uid_map"}})
	if err != nil || strings.Join(strings.Fields(out), " ") != "0 200000 65536" {
		t.Errorf("got %q, %v", out, err)
	}
}
