//go:build linux

package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file unpacks hostile layers: names, links, hard links, whiteouts, attributes. One table for each way out of the
// layer, one line for each number under which somebody has found it.

func canaryFile(h *attackedHost) string { return h.canary + "/file" }

// Names with "..", and links that stand for them: "zip slip".
func TestCVEZipSlip(t *testing.T) {
	leak.Check(t)
	runAttacks(t, []imageAttack{
		{"CVE_2018_1002207", "a name goes up", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawFile(h.up+h.canary[1:]+"/file", "changed")}
		}), ErrInvalidImage, nil},
		{"CVE_2021_21272", "a link to the host's file, then a hard link to it", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("l", h.canary+"/file"), rawHard("h", "l"), rawFile("h", "changed"), rawFile("l", "changed")}
		}), nil, wantTypes(map[string]string{"l": "f:changed", "h": "f:changed"})},
		{"CVE_2024_0406", "a link and a file of the same name", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("evil", h.up+h.canary[1:]+"/private"), rawFile("evil", "changed")}
		}), nil, wantTypes(map[string]string{"evil": "f:changed"})},
		{"CVE_2025_3445", "a directory that is a link out", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("d", h.up+h.canary[1:]), rawFile("d/file", "changed")}
		}), nil, contained(canaryFile, "changed")},
		{"CVE_2026_28406", "the joined path begins with the destination's, and is its neighbour", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawFile("../fs-canary/file", "changed")}
		}), ErrInvalidImage, nil},
		{"CVE_2014_9356", "absolute names and absolute links", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawFile(h.canary+"/file", "changed"), rawLink("l", "/"), rawFile("l"+h.sibling+"/file", "changed")}
		}), nil, contained(canaryFile, "changed")},
	})
}

// The root of the layer itself is replaced by a link, into which the next layer is unpacked.
func TestCVE_2021_29136(t *testing.T) {
	leak.Check(t)
	for _, name := range []string{".", "/", "./", "././/", "//", "./."} {
		runAttacks(t, []imageAttack{{"link " + strings.ReplaceAll(name, "/", "slash"), "the root is a link", func(h *attackedHost) [][]rawEntry {
			return [][]rawEntry{{rawLink(name, h.canary)}, {rawFile("file", "changed")}}
		}, ErrInvalidImage, nil}})
	}
	runAttacks(t, []imageAttack{{"hard link", "the root is linked", one(func(h *attackedHost) []rawEntry {
		return []rawEntry{rawHard("x", "."), rawFile("x/../../fs-canary/file", "changed")}
	}), ErrInvalidImage, nil}})
}

// Parents that are links when the entry below them is written, though they were none, or were harmless, when looked at.
func TestCVESymlinkParents(t *testing.T) {
	leak.Check(t)
	runAttacks(t, []imageAttack{
		{"CVE_2014_6407", "links and hard links to links, in one layer and in the next", func(h *attackedHost) [][]rawEntry {
			return [][]rawEntry{{rawLink("l", h.canary), rawHard("h", "l"), rawFile("h/file", "changed")}, {rawFile("l/file", "changed"), rawFile("h/file", "changed")}}
		}, nil, wantTypes(map[string]string{"l": "d", "l/file": "f:changed", "h": "d", "h/file": "f:changed"})},
		{"CVE_2020_10696", "a link, then a directory and a file of its name", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("d", h.canary), rawDir("d"), rawFile("d/file", "changed")}
		}), nil, wantTypes(map[string]string{"d": "D", "d/file": "f:changed"})},
		{"CVE_2026_17106", "a chain of links, each harmless by its letters", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawDir("a/b"), rawLink("a/b/c", "../.."), rawLink("d", "a/b/c/.."), rawLink("e", "d/"+h.up+h.canary[1:]), rawFile("e/file", "changed")}
		}), nil, contained(canaryFile, "changed")},
		{"CVE_2026_50162", "the link comes after its directory was made", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawDir("d"), rawFile("d/x", "1"), rawLink("d", h.canary), rawFile("d/file", "changed")}
		}), nil, contained(canaryFile, "changed")},
		{"CVE_2026_85731", "the parent's link is made through another link", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawDir("real"), rawLink("via", "real"), rawLink("via/out", h.canary), rawFile("real/out/file", "changed"), rawFile("via/out/dir/file", "changed")}
		}), nil, contained(canaryFile, "changed")},
		{"CVE_2025_11395", "the target that is to be written to has a link in the middle", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawDir("volume"), rawLink("volume/_data", h.canary), rawFile("volume/_data/sub/new", "changed"), rawFile("volume/_data/file", "changed")}
		}), nil, contained(canaryFile, "changed")},
		{"CVE_2022_4122", "a file that the host reads is a link", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("etc/passwd", h.canary+"/private"), rawHard("copy", "etc/passwd")}
		}), nil, func(t *testing.T, h *attackedHost, fs string) {
			v, err := openRootView(Root{Layers: []string{fs}})
			if err != nil {
				t.Fatal(err)
			}
			defer v.close()
			for _, name := range []string{"/etc/passwd", "/copy"} {
				if text, err := v.readFile(name, 1000); err == nil {
					t.Errorf("%s: %q", name, text)
				}
			}
		}},
		{"CVE_2022_4123", "which directories the host has is seen by which links work", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("l", h.canary), rawFile("l/dir/sub/x", "1"), rawLink("m", h.canary+"/missing"), rawFile("m/dir/sub/x", "1")}
		}), nil, func(t *testing.T, h *attackedHost, fs string) {
			// What is on the host makes no difference: both were made in the layer.
			contained(func(h *attackedHost) string { return h.canary + "/dir/sub/x" }, "1")(t, h, fs)
			contained(func(h *attackedHost) string { return h.canary + "/missing/dir/sub/x" }, "1")(t, h, fs)
		}},
		{"magic", "links of procfs lead anywhere", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("p", "/proc/self/root"), rawFile("p"+h.canary+"/file", "changed"), rawLink("c", "/proc/self/cwd"), rawFile("c/x", "1"), rawLink("f", "/dev/fd/3"), rawFile("f/x", "1")}
		}), nil, contained(func(h *attackedHost) string { return "proc/self/cwd/x" }, "1")},
	})
}

// A hard link is another name for a file of this layer, and never for one of the host's.
func TestCVEHardLinks(t *testing.T) {
	leak.Check(t)
	hard := func(id, how string, is error, layer func(h *attackedHost) []rawEntry) imageAttack {
		return imageAttack{id, how, one(layer), is, nil}
	}
	t.Chdir(newCanary(t)) // where "file" is
	runAttacks(t, []imageAttack{
		hard("CVE_2026_50163", "the target is taken from the working directory", ErrInvalidImage, func(h *attackedHost) []rawEntry {
			return []rawEntry{rawHard("x", "file"), rawFile("x", "changed")}
		}),
		hard("CVE_2026_50163 absolute", "to the host's file", ErrInvalidImage, func(h *attackedHost) []rawEntry {
			return []rawEntry{rawHard("x", h.canary+"/file"), rawFile("x", "changed")}
		}),
		hard("CVE_2026_50163 shadow", "to the host's secrets", ErrInvalidImage, func(h *attackedHost) []rawEntry {
			return []rawEntry{rawHard("x", "/etc/shadow")}
		}),
		hard("CVE_2026_50163 up", "to a file above", ErrInvalidImage, func(h *attackedHost) []rawEntry {
			return []rawEntry{rawHard("x", "../fs-canary/file")}
		}),
		hard("CVE_2026_50163 link", "to a link, which is written to", nil, func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("l", h.canary+"/file"), rawHard("x", "l"), rawFile("x", "changed"), rawEntry{name: "l", mode: 0o777, content: "changed"}}
		}),
		hard("CVE_2026_50163 through a link", "a directory on the way is a link out", ErrInvalidImage, func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("d", h.canary), rawHard("x", "d/file"), rawFile("x", "changed")}
		}),
		hard("CVE_2026_50163 forward", "the target comes later", ErrInvalidImage, func(h *attackedHost) []rawEntry {
			return []rawEntry{rawHard("x", "y"), rawLink("y", h.canary+"/file"), rawFile("x", "changed")}
		}),
		hard("CVE_2026_50163 magic", "to a file that this process has open", ErrInvalidImage, func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("fd", "/proc/self/fd"), rawHard("x", "fd/0"), rawHard("y", "/proc/self/exe"), rawFile("y", "changed")}
		}),
		hard("nbc_85", "with a size, whose bytes are the next header", ErrInvalidImage, func(h *attackedHost) []rawEntry {
			return []rawEntry{{name: "x", kind: '1', link: h.canary + "/file", content: string(rawHeader(rawLink("y", h.canary)))}}
		}),
		hard("nbc_86", "to a directory that becomes a link out", ErrInvalidImage, func(h *attackedHost) []rawEntry {
			return []rawEntry{rawDir("d"), rawLink("d", h.sibling), rawHard("x", "d/dir/file"), rawFile("x", "changed")}
		}),
	})
}

// Owner, mode and times of an entry are set on the file that was made, and not on what its name leads to.
func TestCVE_2021_32760(t *testing.T) {
	leak.Check(t)
	mode := func(e rawEntry, mode int64) rawEntry { e.mode = mode; return e }
	runAttacks(t, []imageAttack{
		{"link", "chmod of a link", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{mode(rawLink("x", h.canary+"/private"), 0o4777), mode(rawLink("d", h.canary), 0o777), mode(rawLink("f", h.canary+"/fifo"), 0o666)}
		}), nil, wantTypes(map[string]string{"x": "*", "d": "*", "f": "*"})},
		{"same name", "a file where a link was", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("x", h.canary+"/private"), mode(rawFile("x", ""), 0o4777), rawLink("d", h.canary), mode(rawDir("d"), 0o777)}
		}), nil, wantTypes(map[string]string{"x": "f:", "d": "D"})},
		{"hard link", "a hard link with a mode of its own", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("l", h.canary+"/private"), mode(rawHard("x", "l"), 0o4777), mode(rawHard("y", "x"), 0o777)}
		}), nil, wantTypes(map[string]string{"x": "*", "y": "*", "l": "*"})},
		{"later", "the directory whose mode is set at the end is a link by then", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{mode(rawDir("d"), 0o777), mode(rawDir("d/dir"), 0o777), rawLink("d", h.canary)}
		}), nil, wantTypes(map[string]string{"d": "*"})},
		{"fifo", "a FIFO where a link was", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("x", h.canary+"/fifo"), {name: "x", kind: '6', mode: 0o666}}
		}), nil, wantTypes(map[string]string{"x": "p"})},
	})
}

// Names of whiteouts that mean another file than the one beside them, and whiteouts that are no empty files.
func TestWhiteoutTricks(t *testing.T) {
	leak.Check(t)
	below := func(entries ...rawEntry) func(h *attackedHost) [][]rawEntry {
		return one(func(h *attackedHost) []rawEntry {
			return append([]rawEntry{rawDir("d"), rawFile("d/x", "1")}, entries...)
		})
	}
	var list []imageAttack
	for _, name := range []string{".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh...", "d/.wh..wh.foo", "d/.wh..wh..wh.x", ".wh.d/x", "d/.wh..wh..opq/x", ".wh..wh.opq", ".wh..wh..opq.", "d/.wh..wh.plnk"} {
		list = append(list, imageAttack{"name " + strings.ReplaceAll(name, "/", "|"), "an impossible name", below(rawFile(name, "")), ErrInvalidImage, nil})
	}
	for what, e := range map[string]rawEntry{
		"dir": rawDir(".wh.d"), "link": rawLink(".wh.d", "/"), "hard": rawHard(".wh.d", "d/x"), "content": rawFile(".wh.d", "1"), "fifo": {name: ".wh.d", kind: '6'},
		"opaque dir": rawDir("d/.wh..wh..opq"), "opaque link": rawLink("d/.wh..wh..opq", "/"), "size": {name: ".wh.d", size: 1 << 40},
	} {
		list = append(list, imageAttack{"kind " + what, "a whiteout that is no empty file", below(e), ErrInvalidImage, nil})
	}
	out := func(name, file string) imageAttack {
		return imageAttack{name, "a whiteout through a link out", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawLink("l", h.canary), rawLink("s", "../fs-canary"), rawFile("l/"+file, ""), rawFile("s/"+file, "")}
		}), nil, nil}
	}
	list = append(list, out("through a link", ".wh.file"), out("opaque through a link", ".wh..wh..opq"), imageAttack{
		"device", "a node 0/0, which is what overlayfs takes for a whiteout, and other nodes", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{{name: "file", kind: '3'}, {name: "mem", kind: '3', major: 1, minor: 1}, {name: "disk", kind: '4', major: 8}, {name: "null", kind: '3', major: 1, minor: 3, mode: 0o666}, rawHard("h", "mem")}
		}), ErrInvalidImage, nil,
	}, imageAttack{
		"nodes", "device nodes of the host's", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{{name: "file", kind: '3'}, {name: "mem", kind: '3', major: 1, minor: 1}, {name: "disk", kind: '4', major: 8}}
		}), nil, wantTypes(map[string]string{}),
	}, imageAttack{
		"parent", ".wh... must not remove the parent, nor a whiteout what this layer has", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawDir("d"), rawFile("d/x", "1"), rawFile("d/.wh.x", ""), rawFile(".wh.d", ""), rawFile("d/.wh..wh..opq", ""), rawFile(".wh.....", "")}
		}), nil, wantTypes(map[string]string{"d": "D", "d/x": "f:1", "....": "w"}),
	}, imageAttack{
		"aufs", "what AUFS left at the root means nothing", one(func(h *attackedHost) []rawEntry {
			return []rawEntry{rawDir(".wh..wh.plnk"), rawLink(".wh..wh.plnk/1", h.canary), rawHard(".wh..wh.orph/x", "/etc/shadow"), rawFile(".wh..wh.aufs", "")}
		}), nil, wantTypes(map[string]string{}),
	})
	runAttacks(t, list)
}

// Attributes by which an image would tell overlayfs what to show, and the host's security modules how to label.
func TestXattrSmuggling(t *testing.T) {
	leak.Check(t)
	capability := "\x01\x00\x00\x02\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00"
	attributes := map[string]string{
		"trusted.overlay.opaque": "y", "trusted.overlay.redirect": "/secret", "trusted.overlay.metacopy": "", "trusted.overlay.origin": "x", "trusted.overlay.nlink": "U+1",
		"trusted.overlay.overlay.opaque": "y", "user.overlay.opaque": "y", "user.overlay.redirect": "/secret", "user.overlay.metacopy": "", "user.overlay.upper": "x",
		"user.overlay.impure": "y", "user.overlay.overlay.redirect": "/secret", "user.overlay.": "x", "trusted.x": "1", "security.selinux": "system_u:object_r:etc_t:s0", "security.ima": "1",
		"security.evm": "1", "security.apparmor": "unconfined", "security.SMACK64": "_", "system.posix_acl_access": "\x02\x00\x00\x00", "system.posix_acl_default": "\x02\x00\x00\x00",
		"user.": "", "": "x", "overlay.opaque": "y", "security.capability": "\x01\x00\x00\x03" + capability[4:] + "\x10\x27\x00\x00", // of a user namespace whose root is 10000
	}
	for name, value := range attributes {
		runAttacks(t, []imageAttack{{"attribute " + name, "an attribute", one(func(h *attackedHost) []rawEntry {
			pax := []string{"SCHILY.xattr." + name, value, "LIBARCHIVE.xattr." + name, "eQ==", "RHT.security.selinux", "label"}
			return []rawEntry{{name: "d", kind: '5', pax: pax}, {name: "d/f", content: "1", pax: pax}, {name: "d/p", kind: '6', pax: pax}, {name: "l", link: "d", kind: '2', pax: pax}}
		}), nil, func(t *testing.T, h *attackedHost, fs string) {
			wantTypes(map[string]string{"d": "d", "d/f": "f:1", "d/p": "p", "l": "l:d"})(t, h, fs)
			for _, file := range []string{"d", "d/f", "d/p", "l", "."} {
				if x := imageXattrs(filepath.Join(fs, file)); x != "" {
					t.Errorf("%s has %s", file, x)
				}
				buf := make([]byte, 100) // which imageXattrs leaves out
				if n, err := unix.Lgetxattr(filepath.Join(fs, file), "security.selinux", buf); err == nil && string(buf[:n]) == attributes["security.selinux"] {
					t.Errorf("%s has the image's label", file)
				}
			}
		}}})
	}
	// Headers of earlier entries, and of all entries, say nothing about this one.
	h := newAttackedHost(t)
	stream := append(rawPax('g', "SCHILY.xattr.user.all", "1", "path", "../all", "linkpath", h.canary), rawTar(rawFile("f", "1"), rawEntry{name: "g", content: "2", pax: []string{"SCHILY.xattr.user.own", "1"}}, rawFile("h", "3"))...)
	if _, _, err := unpackInto(t, filepath.Dir(h.dir), unpackOwnership(), strings.NewReader(string(stream))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"f": "", "g": ` user.own="1"`, "h": ""} {
		if x := imageXattrs(h.dir + "/" + name); x != want {
			t.Errorf("%s has %q", name, x)
		}
	}
	if _, err := os.Lstat(filepath.Dir(h.dir) + "/all"); err == nil {
		t.Error("a global header has named a file")
	}
}
