//go:build linux

package container

import (
	"bytes"
	"context"
	"maps"
	"os"
	"strings"
	"testing"

	"example.com/container/internal/testenv"
)

// An image is pulled and run: as root, and as an ordinary user with subordinate ids or one id. What lower
// layers have and upper ones hide is hidden, owners are the image's, and the store stays as it was.
func TestImageRun(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.Overlay, testenv.StaticBusybox)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	program := imageFile("bin/busybox", string(busybox))
	program.Mode = 0o755
	owned := imageFile("etc/owned", "1")
	owned.Uid, owned.Gid = 33, 33
	// The package keeps user namespaces of ranges for the next container; for the leak check they must go.
	t.Cleanup(func() {
		keptUserNamespaces.mu.Lock()
		defer keptUserNamespaces.mu.Unlock()
		for _, f := range keptUserNamespaces.open {
			f.Close()
		}
		clear(keptUserNamespaces.open)
	})
	g := newImageRegistry(t)
	g.add("v1", g.build(map[string]any{"Entrypoint": []string{"/bin/sh", "-c"}, "Env": []string{"PATH=/bin", "X=y"}, "WorkingDir": "/etc"},
		imageTar(t, imageDir("./", 0o755), imageDir("bin/", 0o755), program, imageLink("bin/sh", "busybox"), imageLink("bin/ls", "busybox"), imageLink("bin/stat", "busybox"),
			imageDir("etc/", 0o755), owned, imageFile("etc/gone", "1"), imageDir("opt/", 0o755), imageFile("opt/below", "1"), imageDir("tmp/", 0o1777)),
		imageTar(t, imageDir("./", 0o755), imageDir("etc/", 0o755), imageFile("etc/.wh.gone", ""), imageFile("opt/.wh..wh..opq", ""), imageFile("opt/above", "2")),
	))
	for _, own := range []Ownership{"", OwnershipSingle} {
		s := imageStore(t, &StoreOptions{Ownership: own})
		img := imagePull(t, s, g.ref("v1"), nil)
		before := imageTree(t, img.Root().Layers[0])
		cfg := DefaultConfig()
		cfg.Root = img.Root()
		owner := "33:33"
		switch s.config.Ownership {
		case OwnershipSubIDs:
			cfg.UidMappings, cfg.GidMappings = s.config.UIDMap, s.config.GIDMap
		case OwnershipSingle:
			owner = "0:0"
		}
		c, err := New(t.TempDir(), "image", cfg)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		p := img.Process("stat -c %u:%g owned; ls /etc/gone /opt; echo changed >owned; echo $X; echo $PWD")
		p.Stdout, p.Stderr = &out, &out
		err = c.Run(context.Background(), p)
		if err == nil {
			err = c.Wait()
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", s.config.Ownership, err, &out)
		}
		for _, want := range []string{owner + "\n", "/etc/gone: No such file", "/opt:\nabove\n", "y\n/etc\n"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: output lacks %q:\n%s", s.config.Ownership, want, &out)
			}
		}
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		if after := imageTree(t, img.Root().Layers[0]); !maps.Equal(before, after) {
			t.Errorf("the layer has changed:\n%q\n%q", before, after)
		}
	}
}
