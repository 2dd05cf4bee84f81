//go:build linux

package container

import (
	"io"
	"os"
	"slices"
	"strconv"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file mounts hosts, resolv.conf and hostname of ours in a container. It runs in the caller's process; the files are made by the
// launcher.

// A networkFile is one of them, in /etc.
type networkFile struct {
	name string
	text []byte
}

// networkFiles are those that the container gets: not one that the configuration has a mount for.
func (pl *plan) networkFiles() []networkFile {
	if !pl.cfg.ownNetworkFiles() || pl.network == nil {
		return nil
	}
	hostname := pl.cfg.Hostname
	if hostname == "" {
		hostname, _ = os.Hostname() // which the container has, too
	}
	addresses, resolv := pl.network.state.Addresses, pl.cfg.Network.resolvConf(hostResolvConf)
	if shared := pl.network.shared; shared != nil {
		addresses = shared.addresses
		if shared.network != nil {
			its := shared.network.resolvConf(hostResolvConf)
			resolv = resolv.orElse(its)
		}
	}
	files := []networkFile{
		{"hosts", hostsText(pl.cfg.hosts(pl.network.id, addresses))},
		{"resolv.conf", resolv.text()},
		{"hostname", []byte(hostname + "\n")},
	}
	return slices.DeleteFunc(files, func(f networkFile) bool {
		return slices.ContainsFunc(pl.cfg.Mounts, func(m Mount) bool { return m.Target == "/etc/"+f.name })
	})
}

// hostResolvConf is the host's. Where a server on the host itself is all there is, the file of those that it asks.
func hostResolvConf() ResolvConf {
	c := readResolvConf("/etc/resolv.conf")
	for _, a := range c.Servers {
		if !a.IsLoopback() {
			return c
		}
	}
	if asked := readResolvConf("/run/systemd/resolve/resolv.conf"); len(asked.Servers) > 0 {
		return asked
	}
	return c
}

func readResolvConf(path string) ResolvConf {
	const most = 64 << 10
	f, err := os.Open(path)
	if err != nil {
		return ResolvConf{}
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, most))
	return parseResolvConf(string(text))
}

// scratchNetworkFiles makes the file system with the files.
func (pl *plan) scratchNetworkFiles() {
	files := pl.networkFiles()
	if len(files) == 0 {
		return
	}
	const room = 1 << 20 // for what the container writes; it is memory
	size := room
	for _, f := range files {
		size += len(f.text)
	}
	pl.Step("scratch", "hosts and names")
	pl.netFiles = pl.newFS("tmpfs", "network", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC,
		fsOption{key: "mode", value: "0755"}, fsOption{key: "nr_inodes", value: "8"}, fsOption{key: "size", value: strconv.Itoa(size)})
	for _, f := range files {
		pl.Call(unix.SYS_MKNODAT, pl.netFiles, pl.Str(f.name), unix.S_IFREG|0o644, 0)
		pl.Call(unix.SYS_FCHMODAT, pl.netFiles, pl.Str(f.name), 0o644) // whatever the umask is
		fd := pl.open(pl.netFiles, f.name, unix.O_WRONLY, 0, ownFile).Result()
		pl.Call(unix.SYS_WRITE, fd, pl.Str(string(f.text)), launch.Arg(len(f.text)))
		pl.close(fd)
	}
	pl.attachOverRoot(pl.netFiles)
}

// linkItself resolves a name in a directory, to a link if it is one.
const linkItself = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS

// stepNetworkFiles mounts them. What an image has in their place may be a link, out of the root or to what is not there: it is not followed, the
// mount lies on the link itself.
func (pl *plan) stepNetworkFiles() error {
	files := pl.networkFiles()
	if len(files) == 0 {
		return nil
	}
	pl.Step("hosts and names", "/etc")
	etc := pl.target(pl.root, "/etc", directory, inRoot)
	pl.refuseKernelTree(etc)
	for _, f := range files {
		pl.Step("hosts and names", "/etc/"+f.name)
		mnt := pl.cloneTree(pl.netFiles, f.name, false).Result()
		if pl.cfg.Root.access() == ReadOnly {
			pl.setAttr(mnt, mountAttr{set: unix.MOUNT_ATTR_RDONLY}, false)
		}
		missing, there := pl.Label(), pl.Label()
		at := pl.open(etc, f.name, unix.O_PATH|unix.O_NOFOLLOW, 0, linkItself).On(unix.ENOENT, missing).Then(there)
		pl.Here(missing)
		pl.Call(unix.SYS_MKNODAT, etc, pl.Str(f.name), unix.S_IFREG|0o644, 0).Ignore(unix.EEXIST)
		pl.open(etc, f.name, unix.O_PATH|unix.O_NOFOLLOW, 0, linkItself).StoreTo(at.Result())
		pl.Here(there)
		pl.attach(mnt, at.Result())
		pl.close(at.Result())
		pl.close(mnt)
	}
	pl.close(etc)
	return nil
}
