//go:build linux

package container

import (
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file makes overlays: of layers, and of the host's directories. It runs in the caller's process.

// overlay makes an overlay of the lower directories, the lowest first, with upper and work below
// base, and returns the mount, attached nowhere.
func (pl *plan) overlay(base launch.Arg, upper, work string, lowers []string, attr uint64) launch.Arg {
	pl.Call(unix.SYS_FCHDIR, base)
	legacy, done := pl.Label(), pl.Label()
	fs := pl.fsOpen("overlay", "overlay")
	if len(lowers) == 1 && len(lowers[0]) < 128 {
		set := pl.fsSet(fs, fsOption{key: "lowerdir", value: overlayEscape(lowers[0], `\:`)})
		if strings.Contains(lowers[0], ",") {
			set.On(unix.EINVAL, legacy) // before Linux 6.5 no value may have one
		} else {
			legacy = -1
		}
	} else {
		for i, dir := range slices.Backward(lowers) {
			at := dir
			if len(dir) > 250 { // fsconfig takes no more, but a relative path
				pl.Call(unix.SYS_FCHDIR, pl.open(cwdFD, dir, unix.O_PATH|unix.O_DIRECTORY, 0, 0).Result())
				at = "."
			}
			set := pl.fsSet(fs, fsOption{key: "lowerdir+", value: at})
			if i == len(lowers)-1 || strings.Contains(at, ",") {
				set.On(unix.EINVAL, legacy) // Linux 6.5 and 6.6 do not know it; before, no value may have a comma
			}
		}
		pl.Call(unix.SYS_FCHDIR, base)
	}
	pl.fsSet(fs, fsOption{key: "upperdir", value: upper})
	pl.fsSet(fs, fsOption{key: "workdir", value: work})
	for _, o := range pl.overlayOptions() {
		pl.fsSet(fs, o)
	}
	create := pl.Call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE)
	if legacy >= 0 {
		create.On(unix.EINVAL, legacy) // and earlier ones look at options here only
	}
	mnt := pl.Call(unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, launch.Arg(attr)).Then(done)
	if legacy >= 0 {
		pl.Here(legacy)
		pl.legacyOverlay(base, upper, work, lowers, attr, mnt.Result())
	}
	pl.Here(done)
	pl.close(fs)
	return mnt.Result()
}

// legacyOverlay does the same with mount(2), which Linux before 6.7 needs for more than one lower
// layer. Its options must fit in a page.
func (pl *plan) legacyOverlay(base launch.Arg, upper, work string, lowers []string, attr uint64, result launch.Arg) {
	// mount(2) takes paths only. The lower layers are named relative to what they have in common,
	// and the upper one through a descriptor of a known number.
	const baseFD = 200
	prefix := commonDir(lowers) // "" for names relative to base
	data := make([]string, 0, 8)
	rel := make([]string, 0, len(lowers))
	for _, dir := range slices.Backward(lowers) {
		rel = append(rel, overlayEscape(strings.TrimPrefix(dir, prefix+"/"), `\:,`))
	}
	data = append(data, "lowerdir="+strings.Join(rel, ":"),
		"upperdir=/proc/self/fd/"+strconv.Itoa(baseFD)+"/"+upper, "workdir=/proc/self/fd/"+strconv.Itoa(baseFD)+"/"+work)
	for _, o := range pl.overlayOptions() {
		if o.flag {
			data = append(data, o.key)
		} else {
			value := o.value
			if strings.Contains(value, ",") { // a context; the security module reads the quotes
				value = `"` + value + `"`
			}
			data = append(data, o.key+"="+value)
		}
	}
	options := strings.Join(data, ",")
	if len(options) >= os.Getpagesize() {
		pl.Fail(unix.E2BIG)
		return
	}
	const merged = "merged"
	pl.makeDir(base, merged, 0o755)
	pl.Call(unix.SYS_DUP3, base, baseFD, unix.O_CLOEXEC)
	if prefix != "" {
		pl.Call(unix.SYS_FCHDIR, pl.open(cwdFD, prefix, unix.O_PATH|unix.O_DIRECTORY, 0, 0).Result())
	}
	target := pl.Str("/proc/self/fd/" + strconv.Itoa(baseFD) + "/" + merged)
	pl.Call(unix.SYS_MOUNT, pl.Str("overlay"), target, pl.Str("overlay"), 0, pl.Str(options))
	pl.cloneTree(base, merged, false).StoreTo(result)
	pl.Call(unix.SYS_UMOUNT2, target, unix.MNT_DETACH)
	pl.setAttr(result, mountAttr{set: attr}, false)
	pl.close(baseFD)
}

// overlayOptions switch off what would let a layer speak about files outside of it (redirects,
// metadata-only copies), and in a user namespace choose the attributes that a user may write.
func (pl *plan) overlayOptions() []fsOption {
	options := []fsOption{
		{key: "index", value: "off"}, {key: "xino", value: "off"},
		{key: "metacopy", value: "off"}, {key: "redirect_dir", value: "nofollow"},
	}
	if pl.inUserNamespace() {
		options = append(options, fsOption{key: "userxattr", flag: true})
	}
	if label := pl.cfg.MountLabel; label != "" {
		options = append(options, fsOption{key: "context", value: label})
	}
	return options
}

// overlayEscape puts a backslash before the characters that overlayfs reads as separators.
func overlayEscape(s, special string) string {
	if !strings.ContainsAny(s, special) {
		return s
	}
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte(special, c) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// commonDir is the deepest directory that all of them are below; "" if they are relative.
func commonDir(dirs []string) string {
	if !strings.HasPrefix(dirs[0], "/") {
		return ""
	}
	common := path.Dir(dirs[0])
	for _, d := range dirs {
		for common != "/" && !strings.HasPrefix(d, common+"/") {
			common = path.Dir(common)
		}
	}
	return common
}
