//go:build linux

package guest

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file makes the disk of the guests, their kernels and initial RAM disks, once.
//
//	<cache>/lock           flock(2): who makes an image
//	        <stamp>/       an image: root.img, and vmlinuz and initrd of each series
//	        tmp-<random>/  an image in the making; moved to its stamp when it is whole

// CacheVar is the environment variable that names the cache directory. Without it, it is
// container-guest in os.UserCacheDir.
const CacheVar = "CONTAINER_GUEST_CACHE"

// unused is how long an image of another stamp is kept: another version of this tree may use it.
const unused = 14 * 24 * time.Hour

//go:embed files
var files embed.FS

// packages are in the guests, with what they depend on.
var packages = []string{
	"systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "login", // process 1
	"util-linux", "mount", "procps", "kmod", "iproute2", "libcap2-bin", "strace",
	"uidmap", "busybox-static", "nftables", "iptables", "apparmor", "criu", // what the tests use
	"runc", "crun", "podman", "conmon", "catatonit", "fuse-overlayfs", // others, to compare with
	"policycoreutils", "secilc", "bzip2", // what makes SELinux's policy
}

// imageFiles are those of files/ that go into an image.
var imageFiles = []string{"setup.sh", "init.sh", "disk.sh", "container.cil"}

// Build makes the image that guests start from, unless it is there: it takes a minute or two,
// Debian's packages from where this machine's apt gets them, and 1 GiB of disk. Of several
// processes that need the image one makes it and the others wait. What the programs say goes to
// log. It returns the image's directory.
func Build(ctx context.Context, log io.Writer) (string, error) {
	if err := Missing(); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	cache, err := cacheDir()
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	sources, suite, err := aptSources()
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	image := filepath.Join(cache, stamp(sources, suite))
	if touch(image) {
		return image, nil
	}
	lock, err := lockFile(ctx, filepath.Join(cache, "lock"))
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	defer lock.Close()
	if touch(image) { // by somebody who had the lock before
		return image, nil
	}
	sweep(cache)
	work, err := os.MkdirTemp(cache, "tmp-")
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	defer os.RemoveAll(work)
	if err := build(ctx, work, sources, suite, log); err != nil {
		return "", fmt.Errorf("guest: making an image of %s from %s: %w", suite, sources, err)
	}
	if err := errors.Join(os.Chmod(work, 0o755), os.Rename(work, image)); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	return image, nil
}

// build fills the directory.
func build(ctx context.Context, work, sources, suite string, log io.Writer) error {
	// mmdebstrap works as somebody else, if an ordinary user calls it, and reads these as this user.
	for _, name := range imageFiles {
		if err := os.WriteFile(filepath.Join(work, name), script(name), 0o644); err != nil {
			return err
		}
	}
	setup := `chroot "$1" sh /vm/setup.sh`
	for _, k := range kernels {
		setup += " " + k.series + "=" + k.pkg
	}
	bootstrap := []string{"mmdebstrap", "--quiet", "--variant=minbase", "--format=tar",
		"--include=" + strings.Join(packages, ","),
		`--aptopt=APT::Install-Recommends "false"`,
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		`--customize-hook=mkdir "$1/vm"`,
		"--customize-hook=copy-in setup.sh init.sh container.cil /vm",
		"--customize-hook=" + setup,
		suite, "root.tar", sources}
	disk := []string{"sh", "disk.sh"}
	if os.Geteuid() == 0 {
		// What it mounts is its own, and goes with it.
		bootstrap = append([]string{"unshare", "--mount", "env", "TMPDIR=" + work}, bootstrap...)
	} else {
		// The owners of the files are all of a Debian's, which root of a user namespace may set.
		disk = append([]string{"unshare", "--map-root-user", "--map-auto"}, disk...)
	}
	for _, step := range []struct {
		name string
		args []string
	}{{"mmdebstrap", bootstrap}, {"disk.sh", disk}} {
		cmd := command(exec.CommandContext(ctx, step.args[0], step.args[1:]...))
		cmd.Dir, cmd.Stdout, cmd.Stderr = work, log, log
		cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) } // it cleans up
		cmd.WaitDelay = 20 * time.Second
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, errors.Join(err, context.Cause(ctx)))
		}
	}
	return nil
}

// script returns one of the files that come with this package.
func script(name string) []byte {
	content, err := files.ReadFile("files/" + name)
	if err != nil {
		panic(err) // compiled in
	}
	return content
}

// cacheDir returns the directory of the cache, and makes it.
func cacheDir() (string, error) {
	dir := os.Getenv(CacheVar)
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("%w (set %s)", err, CacheVar)
		}
		dir = filepath.Join(user, "container-guest")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// aptSources returns the file that says where this machine's packages come from, and the name of
// its release.
func aptSources() (file, suite string, err error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(release)) {
		if name, found := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); found {
			suite = strings.Trim(name, `"`)
		}
	}
	for _, file := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		if _, err := os.Stat(file); err == nil && suite != "" {
			return file, suite, nil
		}
	}
	return "", "", errors.New("this is no Debian with apt sources in debian.sources or sources.list")
}

// stamp is a digest of all that makes up an image, but not of the packages' versions: to get newer
// ones, remove the cache.
func stamp(sources, suite string) string {
	h := sha256.New()
	content, _ := os.ReadFile(sources)
	fmt.Fprintf(h, "%s\n%q\n%q\n%q\n", suite, content, kernels, packages)
	for _, name := range imageFiles {
		h.Write(script(name))
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// touch tells whether the image is there, and notes that it is used.
func touch(image string) bool {
	now := time.Now()
	if err := os.Chtimes(image, now, now); errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err := os.Stat(filepath.Join(image, "root.img"))
	return err == nil
}

// sweep removes what killed builders have left, and images that nobody uses. The caller holds the
// lock.
func sweep(cache string) {
	entries, _ := os.ReadDir(cache)
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && e.IsDir() && (strings.HasPrefix(e.Name(), "tmp-") || time.Since(info.ModTime()) > unused) {
			os.RemoveAll(filepath.Join(cache, e.Name()))
		}
	}
}

// lockFile waits for the lock on a file. The kernel drops it at the death of its owner.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err != unix.EWOULDBLOCK {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("waiting for the lock %s: %w", path, context.Cause(ctx))
		case <-time.After(200 * time.Millisecond):
		}
	}
}
