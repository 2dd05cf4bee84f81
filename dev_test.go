//go:build linux

package container

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// devModes runs a test with and without a user namespace.
func devModes(t *testing.T, f func(t *testing.T, cfg Config)) {
	for _, newUser := range []bool{true, false} {
		t.Run(fmt.Sprintf("user namespace %v", newUser), func(t *testing.T) {
			if !newUser {
				testenv.Need(t, testenv.Root)
			}
			cfg := testConfig(t)
			cfg.Namespaces.NewUser = newUser
			f(t, cfg)
		})
	}
}

func TestDev(t *testing.T) {
	devModes(t, func(t *testing.T, cfg Config) {
		owner := "0:0"
		if os.Geteuid() != 0 {
			owner = "65534:65534" // the host's nodes, whose owner has no id here
		}
		want := ""
		for _, d := range []struct{ name, number string }{
			{"full", "1,7"}, {"null", "1,3"}, {"random", "1,8"}, {"tty", "5,0"}, {"urandom", "1,9"}, {"zero", "1,5"},
		} {
			tty := owner
			if d.name == "tty" && cfg.Namespaces.NewUser {
				var st unix.Stat_t
				if err := unix.Stat("/dev/tty", &st); err != nil {
					t.Fatal(err)
				}
				if os.Geteuid() == 0 {
					tty = fmt.Sprintf("%d:%d", st.Uid, st.Gid)
				}
			}
			want += fmt.Sprintf("/dev/%s character special file %s 666 %s\n", d.name, d.number, tty)
		}
		got := sh(t, cfg, `cd /dev; stat -c '%n %F %t,%T %a %u:%g' /dev/full /dev/null /dev/random /dev/tty /dev/urandom /dev/zero
			for l in fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done
			stat -c '%n %F %a' /dev /dev/shm /dev/mqueue /dev/pts /dev/pts/ptmx
			ls | wc -l; ls /dev/pts
			echo x >/dev/null && head -c3 /dev/zero | od -An -tx1; head -c 8 /dev/urandom | wc -c; (echo >/dev/full) 2>&1 | grep -o 'No space.*'; echo x >/dev/shm/x && cat /dev/shm/x
			cd /dev/mqueue && touch queue && cat queue | cut -d' ' -f1`)
		wantText(t, got, want+`fd /proc/self/fd
stdin /proc/self/fd/0
stdout /proc/self/fd/1
stderr /proc/self/fd/2
ptmx pts/ptmx
/dev directory 755
/dev/shm directory 1777
/dev/mqueue directory 1777
/dev/pts directory 755
/dev/pts/ptmx character special file 666
14
ptmx
 00 00 00
8
No space left on device
x
QSIZE:0`)
	})
}

func TestDevices(t *testing.T) {
	testenv.Need(t, testenv.Root)
	cfg := testConfig(t)
	cfg.Namespaces.NewUser = false
	cfg.Devices = []Device{
		{Path: "/dev/net/deep/tun", Type: 'c', Major: 10, Minor: 200, Mode: 0o640, Uid: 5, Gid: 6},
		{Path: "/dev/block", Type: 'b', Major: 7, Minor: 300, Mode: 0o600},
	}
	wantText(t, sh(t, cfg, "stat -c '%n %F %t,%T %a %u:%g' /dev/net/deep/tun /dev/block; ls /dev | tr '\n' ' '"),
		"/dev/net/deep/tun character special file a,c8 640 5:6\n/dev/block block special file 7,12c 600 0:0\nblock fd mqueue net ptmx pts shm stderr stdin stdout ")
	cfg.Devices = []Device{}
	wantText(t, sh(t, cfg, "ls /dev | tr '\n' ' '"), "fd mqueue ptmx pts shm stderr stdin stdout ")
}

// A mount of /dev sets the options of our own tmpfs, and is no other.
func TestDevOptions(t *testing.T) {
	devModes(t, func(t *testing.T, cfg Config) {
		cfg = with(cfg, Mount{Type: "tmpfs", Source: "own", Target: "/dev", Flags: NoSuid | StrictAtime | MountReadOnly, Data: "mode=0700,size=128k"})
		wantText(t, sh(t, cfg, `grep ' /dev ' /proc/mounts | cut -d' ' -f1-4 | sed 's/,uid=.*//; s/,gid=.*//; s/,inode64//'; stat -c %a /dev
			touch /dev/x 2>&1 | grep -o 'Read-only.*'; echo x >/dev/null && echo x >/dev/shm/x && echo written`),
			"own /dev tmpfs ro,nosuid,size=128k,mode=700\n700\nRead-only file system\nwritten")
	})
}

// With DevicesOnly no node but those of Devices works, wherever it comes from; without it they all do.
func TestDevicesOnly(t *testing.T) {
	testenv.Need(t, testenv.Root)
	cfg := testConfig(t)
	cfg.Namespaces.NewUser = false
	cfg.Capabilities = DefaultCapabilitiesConfig()
	for _, set := range []*[]string{&cfg.Capabilities.Bounding, &cfg.Capabilities.Effective, &cfg.Capabilities.Permitted} {
		*set = append(*set, "CAP_MKNOD")
	}
	volume := t.TempDir()
	if err := unix.Mknod(volume+"/zero", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
		t.Fatal(err)
	}
	cfg = with(cfg, Mount{Type: "bind", Source: volume, Target: "/volume", Flags: Recursive | TopOnly},
		Mount{Type: "tmpfs", Target: "/dev/own"}, Mount{Type: "tmpfs", Target: "/copied", CopyUp: true})
	cfg.Devices = append(DefaultDevices(), Device{Path: "/dev/deep/zero", Type: 'c', Major: 1, Minor: 5, Mode: 0o640, Uid: 5, Gid: 6})
	const script = `for d in /dev /dev/own /copied /volume; do mknod $d/made c 1 5; done
		stat -c '%F %t,%T %a %u:%g' /dev/null /dev/deep/zero
		for f in /dev/zero /dev/deep/zero /dev/made /dev/own/made /copied/made /volume/made /volume/zero; do head -c1 $f >/dev/null 2>&1 && echo $f; done; ls -A /dev/pts; echo x >/dev/null`
	nodes := "character special file 1,3 666 0:0\ncharacter special file 1,5 640 5:6\n/dev/zero\n/dev/deep/zero"
	cfg.DevicesOnly = true
	wantText(t, sh(t, cfg, script), nodes+"\nptmx")
	os.Remove(volume + "/made")
	cfg.DevicesOnly = false
	wantText(t, sh(t, cfg, script), nodes+"\n/dev/made\n/dev/own/made\n/copied/made\n/volume/made\n/volume/zero\nptmx")

	cfg.DevicesOnly = true
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}, Capabilities: &Capabilities{Bounding: []string{"CAP_SYS_ADMIN"}}})
	var f *FieldError
	if !errors.As(err, &f) || f.Field != "DevicesOnly" {
		t.Errorf("with CAP_SYS_ADMIN: %v", err)
	}
}

// In a user namespace a device is the host's of the same path, with the same numbers, or there is none.
func TestCVE_2025_31133(t *testing.T) {
	cfg := testConfig(t)
	for name, d := range map[string]Device{
		"other number":  {Path: "/dev/null", Type: 'c', Major: 1, Minor: 5},
		"other type":    {Path: "/dev/null", Type: 'b', Major: 1, Minor: 3},
		"not there":     {Path: "/dev/no-such-device", Type: 'c', Major: 1, Minor: 3},
		"not a device":  {Path: "/dev/shm-not", Type: 'c', Major: 1, Minor: 3},
		"symbolic link": {Path: "/dev/core", Type: 'c', Major: 1, Minor: 3},
	} {
		cfg.Devices = []Device{d}
		_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
		var e *Error
		if !errors.As(err, &e) || e.Op != "device" || e.Path != d.Path || e.Remedy == "" || !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: %v", name, err)
		}
	}

	// What the image has in its /dev is of no account: a fake null masks nothing and is not written to.
	devModes(t, func(t *testing.T, cfg Config) {
		canary := t.TempDir() + "/canary"
		if err := os.WriteFile(canary, []byte("canary"), 0o666); err != nil {
			t.Fatal(err)
		}
		writeTree(t, cfg.Root.Dir, map[string]string{"dev/null": "-> /proc/sys/kernel/core_pattern", "dev/zero": "-> " + canary, "dev/full": "a file", "dev/pts": "-> /etc", "dev/console": "-> /proc/sysrq-trigger", "dev/shm": "-> " + canary})
		if err := unix.Mkfifo(cfg.Root.Dir+"/dev/random", 0o666); err != nil {
			t.Fatal(err)
		}
		unchanged(t, cfg.Root.Dir+"/dev")
		pattern, _ := os.ReadFile("/proc/sys/kernel/core_pattern")
		wantText(t, sh(t, cfg, "echo evil >/dev/null; stat -c %F /dev/null /dev/zero /dev/full /dev/random; cat /proc/keys /proc/timer_list | wc -c"), strings.Repeat("character special file\n", 4)+"0")
		if now, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); string(now) != string(pattern) {
			t.Errorf("core_pattern is %q", now)
		}
	})
}

func TestMaskedAndReadonlyPaths(t *testing.T) {
	devModes(t, func(t *testing.T, cfg Config) {
		root := cfg.Root.Dir
		writeTree(t, root, map[string]string{"secret/file": "secret", "file": "secret", "ro/sub/file": "text", "up": "-> ../secret", "ro-file": "text"})
		unchanged(t, root+"/secret")
		unchanged(t, root+"/ro")
		cfg.MaskPaths = append(cfg.MaskPaths, "/file", "/secret", "/missing", "/missing/deeper", "/file/below")
		cfg.ReadonlyPaths = append(cfg.ReadonlyPaths, "/ro", "/ro-file", "/missing", "/file/below")
		got := sh(t, cfg, `cat /file; wc -c </file; ls -A /secret /sys/firmware; cat /up/file 2>&1
			for f in /file /secret/x /ro/x /ro/sub/file /ro-file /proc/sys/kernel/msgmax /proc/timer_list /sys/firmware/x /sys/x; do (echo x >>$f) 2>&1 | sed 's/.*: //'; done
			rm -r /secret /file 2>&1 | grep -o busy; cat /ro/sub/file
			cat /proc/keys /proc/timer_list /proc/interrupts | wc -c; ls /missing 2>&1`+"; true")
		const ro = "Read-only file system\n"
		wantText(t, got, "0\n/secret:\n\n/sys/firmware:\ncat: can't open '/up/file': No such file or directory\n"+strings.Repeat(ro, 7)+ro+ro+
			"busy\nbusy\ntext0\nls: /missing: No such file or directory")
	})
}
