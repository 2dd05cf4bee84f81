//go:build linux

package container

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file pulls from a real registry an image made of Debian's packages, pushed by skopeo, and compares
// the merged tree, file by file, with what umoci makes of the same image.

// imageDockerRegistry starts a docker-registry and returns its address.
func imageDockerRegistry(t testing.TB) string {
	t.Helper()
	testenv.Need(t, testenv.Registry)
	addr := fmt.Sprintf("127.0.0.1:%d", reservedPort(t))
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", dir, addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testenv.LookPath("docker-registry"), "serve", config)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OTEL_TRACES_EXPORTER=none"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if resp, err := http.Get("http://" + addr + "/v2/"); err == nil {
			resp.Body.Close()
			http.DefaultClient.CloseIdleConnections()
			return addr
		}
	}
	t.Fatalf("docker-registry does not answer:\n%s", &out)
	return ""
}

// reservedPort is a port of 127.0.0.1 at which a program can listen that sets SO_REUSEADDR, as most do, and that the kernel chooses for nobody else
// until the test ends.
func reservedPort(t testing.TB) uint16 {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	at, nerr := unix.Getsockname(fd)
	if err = errors.Join(err, nerr); err != nil {
		t.Fatal(err)
	}
	return uint16(at.(*unix.SockaddrInet4).Port)
}

// imageCommand runs a program.
func imageCommand(t testing.TB, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir(), "XDG_RUNTIME_DIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// imagePackages returns the files of some Debian packages as tars, one for each; nil without apt or a network.
func imagePackages(t testing.TB, names ...string) [][]byte {
	t.Helper()
	dir := t.TempDir()
	os.Chmod(dir, 0o777) // apt downloads as a user of its own

	// Without a network it may try for long.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "download"}, names...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Logf("no packages, the layers are made without them: %v\n%s", err, out)
		return nil
	}
	debs, _ := filepath.Glob(dir + "/*.deb")
	var tars [][]byte
	for _, deb := range debs {
		out, err := exec.Command("dpkg-deb", "--fsys-tarfile", deb).Output()
		if err != nil {
			t.Fatal(err)
		}
		tars = append(tars, out)
	}
	return tars
}

// imageLayout writes an OCI layout with one image of the layers, tagged "v1".
func imageLayout(t testing.TB, dir string, layers ...[]byte) {
	t.Helper()
	blob := func(b []byte) map[string]any {
		d := imageDigest(b)
		if err := os.WriteFile(filepath.Join(dir, "blobs/sha256", d[7:]), b, 0o644); err != nil {
			t.Fatal(err)
		}
		return map[string]any{"digest": d, "size": len(b)}
	}
	if err := os.MkdirAll(dir+"/blobs/sha256", 0o755); err != nil {
		t.Fatal(err)
	}
	var descs, diffIDs []any
	for _, l := range layers {
		diffIDs = append(diffIDs, imageDigest(l))
		d := blob(imageGzip(l))
		d["mediaType"] = mediaOCILayer + "+gzip"
		descs = append(descs, d)
	}
	add := func(mediaType string, v any) map[string]any {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		d := blob(b)
		d["mediaType"] = mediaType
		return d
	}
	config := add(mediaOCIConfig, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Cmd": []string{"sh"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	m := add(mediaOCIManifest, map[string]any{"schemaVersion": 2, "mediaType": mediaOCIManifest, "config": config, "layers": descs})
	m["annotations"] = map[string]string{annotationRefName: "v1"}
	index, _ := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{m}})
	os.WriteFile(dir+"/index.json", index, 0o644)
	os.WriteFile(dir+"/oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

// imageMount mounts layers as a container sees them.
func imageMount(t testing.TB, layers []string) string {
	t.Helper()
	target := t.TempDir()
	lower := slices.Clone(layers)
	slices.Reverse(lower)
	if err := unix.Mount("overlay", target, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(lower, ":")); err != nil {
		t.Fatalf("mount the layers: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, 0); err != nil {
			t.Error(err)
		}
	})
	return target
}

// imageDebianLayers are layers with everything that an image may have.
func imageDebianLayers(t testing.TB) [][]byte {
	own := func(e imageEntry, uid, gid int, mode int64) imageEntry {
		e.Uid, e.Gid, e.Mode = uid, gid, mode
		return e
	}
	caps := own(imageFile("usr/bin/capable", "program"), 0, 0, 0o755)
	caps.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": imageCapability, "SCHILY.xattr.user.note": "kept"}
	fine := imageFile("opt/time", "fine")
	fine.ModTime = unixTime(1500000000).Add(987654321)
	base := imageTar(t,
		imageDir("./", 0o755), imageDir("opt/", 0o755), imageDir("opt/gone/", 0o700), imageFile("opt/gone/1", "1"), imageFile("opt/gone/2", "2"),
		imageDir("opt/whole/", 0o755), imageFile("opt/whole/a", "a"), imageFile("opt/file-to-dir", "1"), imageDir("opt/dir-to-file/", 0o755), imageFile("opt/dir-to-file/x", "1"),
		imageLink("opt/link-to-dir", "whole"), imageFile("opt/kept", "kept"),
	)
	top := imageTar(t,
		imageDir("./", 0o755), imageDir("opt/", 0o755), imageFile("opt/.wh.whole", ""), imageDir("opt/gone/", 0o711), imageFile("opt/gone/.wh..wh..opq", ""), imageFile("opt/gone/3", "3"),
		imageDir("opt/file-to-dir/", 0o1777), imageFile("opt/file-to-dir/in", "2"), imageFile("opt/dir-to-file", "1"), imageDir("opt/link-to-dir/", 0o755), imageFile("opt/link-to-dir/new", "n"),
		imageDir("usr/", 0o755), imageDir("usr/bin/", 0o755), caps, own(imageFile("usr/bin/setuid", "program"), 33, 34, 0o6755), imageHardlink("usr/bin/other", "usr/bin/setuid"),
		fine, own(imageLink("opt/dangling", "/nowhere"), 1000, 1000, 0o777), imageHardlink("opt/dangling2", "opt/dangling"), own(imageDir("opt/locked", 0), 12, 13, 0),
		own(imageEntry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "opt/fifo"}}, 5, 6, 0o620), imageFile("opt/empty", ""), imageFile("opt/"+strings.Repeat("n", 200), "long"),
	)
	layers := [][]byte{base}
	layers = append(layers, imagePackages(t, "passwd", "bash", "iputils-ping")...)
	return append(layers, top)
}

func TestImageRegistry(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Overlay, testenv.Program("skopeo", "skopeo"), testenv.Program("umoci", "umoci"))
	layout := filepath.Join(t.TempDir(), "layout")
	imageLayout(t, layout, imageDebianLayers(t)...)
	rootfs := filepath.Join(imageTempDir(t), "rootfs")
	imageCommand(t, "umoci", "raw", "unpack", "--image", layout+":v1", rootfs)
	want := imageTree(t, rootfs)

	addr := imageDockerRegistry(t)
	plain := filepath.Join(t.TempDir(), "plain") // without compression, so that it is compressed anew
	imageCommand(t, "skopeo", "--insecure-policy", "copy", "-q", "--dest-decompress", "oci:"+layout+":v1", "dir:"+plain)
	for _, to := range []struct {
		tag  string
		args []string
	}{
		{"oci", []string{"--format=oci", "oci:" + layout + ":v1"}},
		{"docker", []string{"--format=v2s2", "oci:" + layout + ":v1"}},
		{"zstd", []string{"--format=oci", "--dest-compress-format=zstd", "dir:" + plain}},
	} {
		args := append([]string{"--insecure-policy", "copy", "-q", "--dest-tls-verify=false"}, to.args...)
		imageCommand(t, "skopeo", append(args, "docker://"+addr+"/test/debian:"+to.tag)...)
		img, err := imageStore(t, nil).Pull(context.Background(), addr+"/test/debian:"+to.tag, nil)
		if err != nil {
			t.Fatal(err)
		}
		imageCompare(t, to.tag, imageTree(t, imageMount(t, img.Root().Layers)), want)
	}

	// The same image from files.
	dir := t.TempDir()
	imageCommand(t, "skopeo", "--insecure-policy", "copy", "-q", "oci:"+layout+":v1", "oci-archive:"+dir+"/oci.tar:v1")
	imageCommand(t, "skopeo", "--insecure-policy", "copy", "-q", "oci:"+layout+":v1", "docker-archive:"+dir+"/docker.tar:test:v1")
	for _, source := range []string{"oci:" + layout, "oci:" + layout + ":v1", "oci-archive:" + dir + "/oci.tar", "docker-archive:" + dir + "/docker.tar:docker.io/library/test:v1"} {
		img, err := imageStore(t, nil).Open(context.Background(), source, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		imageCompare(t, source, imageTree(t, imageMount(t, img.Root().Layers)), want)
	}
}

// imageCompare compares two trees.
func imageCompare(t *testing.T, name string, got, want map[string]string) {
	t.Helper()
	differences := 0
	for path := range union(got, want) {
		// The attribute of the other kind of mount is visible, and without meaning.
		g := strings.ReplaceAll(got[path], ` user.overlay.opaque="y"`, "")
		if w := want[path]; g != w {
			if differences++; differences < 20 {
				t.Errorf("%s: %s:\n got  %s\n want %s", name, path, g, w)
			}
		}
	}
	if len(want) < 20 {
		t.Errorf("%s: only %d files were compared", name, len(want))
	}
}

func union(a, b map[string]string) map[string]bool {
	u := map[string]bool{}
	for _, m := range []map[string]string{a, b} {
		for k := range m {
			u[k] = true
		}
	}
	return u
}
