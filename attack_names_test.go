//go:build linux

package container

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file tries names, each as that of a file, a directory, a link, a FIFO, a hard link, and as the target of both kinds of links.

// hostileNames are names that some program has taken for another place than it said. What they mean here: "" is the layer's root,
// "!" is refused, "L" is too long, and all else is the one path at which the file is.
var hostileNames = [][2]string{
	{"..", "!"}, {"../", "!"}, {"../x", "!"}, {"../../x", "!"}, {"/..", "!"}, {"/../x", "!"}, {"./../x", "!"}, {"x/..", "!"}, {"x/../y", "!"}, {"x/../../y", "!"},
	{"x/./../../y", "!"}, {"x//..//..//y", "!"}, {"//../x", "!"}, {".//../x", "!"}, {"x/y/../../../z", "!"}, {"../fs-canary/file", "!"}, {"../fs/x", "!"}, {"x/..//", "!"},
	{"..//x", "!"}, {"x/y/..", "!"}, {"/./../../etc/passwd", "!"}, {"", ""}, {".", ""}, {"/", ""}, {"./", ""}, {"//", ""},
	{"/.", ""}, {"././.", ""}, {"///./", ""}, {"...", "..."}, {"....", "...."}, {"..x", "..x"}, {"x..", "x.."}, {".x", ".x"},
	{"x.", "x."}, {".. ", ".. "}, {" ..", " .."}, {" ", " "}, {"x/.../y", "x/.../y"}, {"x/..y/z", "x/..y/z"}, {"/x", "x"},
	{"//x", "x"}, {"///x//y", "x/y"}, {"./x", "x"}, {"x/./y", "x/y"}, {"x//y", "x/y"}, {"/etc/passwd", "etc/passwd"}, {"\\..\\x", "\\..\\x"},
	{"..\\x", "..\\x"}, {"C:\\x", "C:\\x"}, {"C:x", "C:x"}, {"\\\\host\\share", "\\\\host\\share"}, {"%2e%2e/x", "%2e%2e/x"}, {"..%2fx", "..%2fx"}, {"\xc0\xae\xc0\xae/x", "\xc0\xae\xc0\xae/x"},
	{"\u2024\u2024/x", "\u2024\u2024/x"}, {"\uff0e\uff0e/x", "\uff0e\uff0e/x"}, {"x\n../y", "x\n../y"}, {"x\r", "x\r"}, {"\x1b[2Jx", "\x1b[2Jx"}, {"\u202ex", "\u202ex"}, {"-rf", "-rf"},
	{"--help", "--help"}, {"*", "*"}, {"$(id)", "$(id)"}, {"`id`", "`id`"}, {"~", "~"}, {"~root/x", "~root/x"}, {"proc/self/root/x", "proc/self/root/x"}, {"dev/fd/0", "dev/fd/0"},
	{"@", "@"}, {"\x00", "!"}, {"x\x00/../../y", "!"}, {strings.Repeat("n", 255), strings.Repeat("n", 255)}, {strings.Repeat("n", 256), "L"},
	{strings.Repeat("d/", 255) + "x", strings.Repeat("d/", 255) + "x"}, {strings.Repeat("d/", 256) + "x", "L"}, {strings.Repeat("/", 4000) + "x", "x"}, {strings.Repeat("nnnnnnn/", 600) + "x", "L"},
}

func TestHostileNames(t *testing.T) {
	leak.Check(t)
	if len(hostileNames) < 60 {
		t.Fatal(len(hostileNames))
	}
	h := newAttackedHost(t)
	for _, n := range hostileNames {
		name, want := n[0], n[1]
		if _, err := cleanName(name); strings.ContainsRune(name, 0) && !errors.Is(err, ErrInvalidImage) {
			t.Errorf("%q: %v", name, err) // the tar's reader refuses it, too
		}
		is := map[string]error{"!": ErrInvalidImage, "L": ErrLimit}[want]
		dir := rawEntry{name: name, kind: '5'}
		if got := h.unpackName(t, dir); is != nil && !errors.Is(got, is) || is == nil && got != nil {
			t.Errorf("directory %.100q: %v", name, got)
		} else if got == nil {
			h.wantPath(t, name, want, unix.S_IFDIR)
		}
		if is == nil && want == "" {
			is = ErrInvalidImage // the root is a directory
		}
		slash := strings.HasSuffix(name, "/")
		for kind, mode := range map[byte]uint32{'0': unix.S_IFREG, '2': unix.S_IFLNK, '6': unix.S_IFIFO} {
			if kind == '0' && slash {
				continue // archive/tar takes it for a directory, as old tars do
			}
			got := h.unpackName(t, rawEntry{name: name, kind: kind, link: h.canary})
			if is != nil && !errors.Is(got, is) || is == nil && got != nil {
				t.Errorf("%c %.100q: %v", kind, name, got)
			} else if got == nil {
				h.wantPath(t, name, want, mode)
			}
		}
		// As the target of a hard link there is no such file but the one that was made with that name.
		got := h.unpackName(t, rawHard("new", name))
		if want == "L" && !errors.Is(got, ErrLimit) || want != "L" && !errors.Is(got, ErrInvalidImage) {
			t.Errorf("hard link to %.100q: %v", name, got)
		}
		if is == nil && !slash {
			if got := h.unpackName(t, rawFile(name, "1"), rawHard("other/new", name)); got != nil {
				t.Errorf("hard link to %.100q: %v", name, got)
			}
		}
		// As the target of a symbolic link it leads to where a chroot would, and what is below is there.
		if name != "" && !strings.ContainsRune(name, 0) && want != "L" {
			if got := h.unpackName(t, rawLink("l", name), rawFile("l/below", "1")); got != nil {
				t.Errorf("through a link to %.100q: %v", name, got)
			} else if count := countFiles(t, h.dir); count != 1 {
				t.Errorf("through a link to %.100q: %d files", name, count)
			}
		}
	}
}

// unpackName unpacks entries into a new layer.
func (h *attackedHost) unpackName(t *testing.T, entries ...rawEntry) error {
	t.Helper()
	if err := removeTree(unix.AT_FDCWD, h.dir); err != nil {
		t.Fatal(err)
	}
	_, _, err := unpackInto(t, filepath.Dir(h.dir), OwnershipSingle, bytes.NewReader(rawTar(entries...)))
	return err
}

func (h *attackedHost) wantPath(t *testing.T, name, want string, mode uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(h.dir+"/"+want, &st); err != nil || st.Mode&unix.S_IFMT != mode {
		t.Errorf("%.100q is not at %.100q: %o, %v", name, want, st.Mode, err)
	}
}

func countFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			n++
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return n
}
