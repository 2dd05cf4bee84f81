//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/container/internal/launch"
	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// needLandlock skips where the kernel has less.
func needLandlock(t testing.TB, abi int) {
	t.Helper()
	if has, err := landlockABI(); err != nil || has < abi {
		t.Skipf("the kernel has version %d of Landlock, %v; this needs %d", has, err, abi)
	}
}

// landlockConfig is a container whose shell may be executed.
func landlockConfig(t testing.TB, l Landlock) Config {
	cfg := testConfig(t)
	writeTree(t, cfg.Root.Dir, map[string]string{"data/read/file": "r", "data/write/file": "w", "data/none/file": "n", "data/one": "1", "data/link": "-> /data/read/file"})
	for _, name := range []string{"data/write", "data/write/file", "data/read", "data/read/file", "data/none", "data/none/file", "data/one", "tmp"} {
		if err := os.Chmod(cfg.Root.Dir+"/"+name, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if l.files() {
		l.Execute = append(slices.Clone(l.Execute), "/bin")
		l.ReadWrite = append(slices.Clone(l.ReadWrite), "/dev/null")
	}
	cfg.Landlock = &l
	return cfg
}

// denials tries each of the commands, and tells which are denied.
func denials(commands map[string]bool) (script string) {
	var b strings.Builder
	for _, c := range sortedKeys(commands) {
		fmt.Fprintf(&b, "(%s) >/dev/null 2>&1 && echo 'yes %s' || echo 'no %s'\n", c, strings.ReplaceAll(c, "'", ""), strings.ReplaceAll(c, "'", ""))
	}
	return b.String()
}

func sortedKeys(m map[string]bool) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// wantDenials compares.
func wantDenials(t *testing.T, how, out string, commands map[string]bool) {
	t.Helper()
	var want []string
	for _, c := range sortedKeys(commands) {
		word := map[bool]string{true: "yes ", false: "no "}[commands[c]]
		want = append(want, word+strings.ReplaceAll(c, "'", ""))
	}
	if got := strings.Split(strings.TrimSpace(out), "\n"); !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %q\nwant %q", how, got, want)
	}
}

// fileRights are what is tried, and whether it works with the rules of the test.
var fileRights = map[string]bool{
	"cat /data/read/file":                        true,
	"cat /data/link":                             true,
	"ls /data/read":                              true,
	"cat /data/one":                              true,
	"cat /data/write/file":                       true,
	"echo x >>/data/write/file":                  true,
	"truncate -s 1 /data/write/file":             true,
	"mkdir /data/write/d && rmdir /data/write/d": true,
	"ln -s a /data/write/s && rm /data/write/s":  true,
	"mkfifo /data/write/p && rm /data/write/p":   true,
	"mv /data/write/file /data/write/f && mv /data/write/f /data/write/file": true,
	"echo x >/dev/null":                    true,
	"cat /data/none/file":                  false,
	"ls /data":                             false,
	"ls /":                                 false,
	"cat /etc/passwd":                      false,
	"echo x >>/data/read/file":             false,
	"echo x >/data/one":                    false,
	"truncate -s 0 /data/read/file":        false,
	"touch /data/read/new":                 false,
	"rm /data/read/file":                   false,
	"ln /data/read/file /data/write/file2": false,
	"mv /data/read/file /data/write/file3": false,
	"touch /tmp/new":                       false,
	"cat /proc/self/status":                false,
	"cp /bin/busybox /data/write/true && /data/write/true": false, // written, but not executed
}

// TestLandlockFiles restricts files for root and others, in a start and in Exec, behind a gate and below a reaper.
func TestLandlockFiles(t *testing.T) {
	needLandlock(t, 3)
	rules := Landlock{ReadOnly: []string{"/data/read", "/data/one"}, ReadWrite: []string{"/data/write"}}
	for name, change := range map[string]func(*Config){
		"user namespace": func(*Config) {},
		"root":           func(cfg *Config) { cfg.Namespaces.NewUser = os.Geteuid() != 0 },
		"privileges":     func(cfg *Config) { cfg.NoNewPrivileges = false },
		"init":           func(cfg *Config) { cfg.Init = true },
		"detached":       func(cfg *Config) { cfg.Detached = true },
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cfg := landlockConfig(t, rules)
			change(&cfg)
			wantDenials(t, "run", sh(t, cfg, denials(fileRights)), fileRights)
			c := execSleeper(t, cfg)
			wantDenials(t, "exec", execSh(t, c, Process{}, denials(fileRights)), fileRights)
		})
	}
	t.Run("not restricted", func(t *testing.T) { // the commands fail because of the rules only
		leak.Check(t)
		cfg := landlockConfig(t, rules)
		cfg.Landlock = nil
		all := map[string]bool{}
		for c := range fileRights {
			if !strings.HasPrefix(c, "rm ") && !strings.HasPrefix(c, "mv /data/read") && !strings.HasPrefix(c, "cat /data/read") && c != "cat /data/link" && !strings.HasPrefix(c, "ln /data/read") {
				all[c] = true
			}
		}
		wantDenials(t, "run", sh(t, cfg, denials(all)), all)
	})
	t.Run("hook", func(t *testing.T) {
		leak.Check(t)
		cfg := landlockConfig(t, rules)
		hookSet(&cfg, hookStartContainer, Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "cat /data/read/file && ! cat /etc/passwd"}})
		sh(t, cfg, "true")
	})
}

// TestLandlockErrors: what cannot be had, and what would be a mistake.
func TestLandlockErrors(t *testing.T) {
	needLandlock(t, 3)
	leak.Check(t)
	cfg := landlockConfig(t, Landlock{ReadOnly: []string{"/data/read", "/no/such"}})
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
	if e := wantError(t, err, "landlock", unix.ENOENT); e.Path != "/no/such" || e.Remedy == "" {
		t.Errorf("got %v", err)
	}
	cfg.Landlock = &Landlock{ReadOnly: []string{"/"}}
	_, err = runIn(t, cfg, &Process{Args: []string{"true"}})
	if e := wantError(t, err, "execute", unix.EACCES); !errors.Is(err, ErrNotExecutable) || !strings.Contains(e.Remedy, "Execute") {
		t.Errorf("got %v", err)
	}
	// A link of the image does not lead out of it.
	writeTree(t, cfg.Root.Dir, map[string]string{"out": "-> ../../../../../../../../../../var"})
	cfg.Landlock = &Landlock{ReadOnly: []string{"/out"}, Execute: []string{"/bin"}}
	_, err = runIn(t, cfg, &Process{Args: []string{"true"}})
	wantError(t, err, "landlock", unix.ENOENT)

	for field, l := range map[string]Landlock{
		"Landlock":              {BestEffort: true},
		"Landlock.ReadOnly[0]":  {ReadOnly: []string{"relative"}},
		"Landlock.Execute[1]":   {Execute: []string{"/a", "/b\x00"}},
		"Landlock.RestrictTCP":  {ReadOnly: []string{"/"}, BindTCP: []uint16{1}},
		"Landlock.ReadWrite[0]": {ReadWrite: []string{""}},
	} {
		cfg.Landlock = &l
		var f *FieldError
		if err := cfg.validate(); !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestLandlockVersions: what older kernels lack is named, or left out if that was asked for.
func TestLandlockVersions(t *testing.T) {
	all := Landlock{ReadOnly: []string{"/"}, RestrictTCP: true, NoAbstractSockets: true, NoSignals: true}
	for _, x := range []struct {
		abi   int
		lacks []string
		want  landlockRules
	}{
		{0, []string{"ReadOnly", "RestrictTCP", "NoAbstractSockets", "NoSignals"}, landlockRules{}},
		{1, []string{"ReadOnly", "RestrictTCP", "NoAbstractSockets", "NoSignals"}, landlockRules{files: 1<<13 - 1}},
		{2, []string{"ReadOnly", "RestrictTCP", "NoAbstractSockets", "NoSignals"}, landlockRules{files: 1<<14 - 1}},
		{3, []string{"RestrictTCP", "NoAbstractSockets", "NoSignals"}, landlockRules{files: 1<<15 - 1}},
		{4, []string{"NoAbstractSockets", "NoSignals"}, landlockRules{files: 1<<15 - 1, tcp: 3}},
		{5, []string{"NoAbstractSockets", "NoSignals"}, landlockRules{files: 1<<16 - 1, tcp: 3}},
		{6, nil, landlockRules{files: 1<<16 - 1, tcp: 3, scopes: 3}},
		{99, nil, landlockRules{files: 1<<16 - 1, tcp: 3, scopes: 3}},
	} {
		x.want.abi = x.abi
		strict, best := all, all
		best.BestEffort = true
		if r, err := best.rules(x.abi); err != nil || r != x.want {
			t.Errorf("%d: %+v, %v", x.abi, r, err)
		}
		_, err := strict.rules(x.abi)
		if (err != nil) != (len(x.lacks) > 0) || err != nil && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%d: %v", x.abi, err)
		}
		for _, field := range x.lacks {
			if !strings.Contains(fmt.Sprint(err), "Landlock."+field+": needs the Landlock of Linux ") {
				t.Errorf("%d does not name %s: %v", x.abi, field, err)
			}
		}
	}
}

// TestLandlockNetwork shares network and processes with the host.
func TestLandlockNetwork(t *testing.T) {
	needLandlock(t, 6)
	leak.Check(t)
	listen := func() uint16 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return uint16(l.Addr().(*net.TCPAddr).Port)
	}
	open, closed := listen(), listen()
	bindable := reservedPort(t)
	abstract := fmt.Sprintf("@container-test-%d", os.Getpid())
	l, err := net.Listen("unix", abstract)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	victim := exec.Command("sleep", "100")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer victim.Wait()
	defer victim.Process.Kill()

	cfg := landlockConfig(t, Landlock{RestrictTCP: true, ConnectTCP: []uint16{open}, BindTCP: []uint16{bindable}, NoAbstractSockets: true, NoSignals: true})
	cfg.Namespaces.NewNet, cfg.Namespaces.NewPID = false, false
	attackerIn(t, cfg.Root.Dir)
	args := []string{"/attacker", fmt.Sprint(open), fmt.Sprint(closed), fmt.Sprint(bindable), abstract, fmt.Sprint(victim.Process.Pid)}
	run := func() string {
		out, err := runIn(t, cfg, &Process{Args: args, Env: []string{attackVar + "=landlock"}})
		if err != nil {
			t.Fatal(out, err)
		}
		return out
	}
	const allowed = "connect <nil>\nother true\nbind <nil>\nany %v\nabstract %v\nsignal %v\nown signal <nil>\n"
	wantText(t, strings.Replace(run(), "other permission denied", "other true", 1), fmt.Sprintf(allowed, "permission denied", "operation not permitted", "operation not permitted"))
	cfg.Landlock = nil
	wantText(t, strings.Replace(run(), "other <nil>", "other true", 1), fmt.Sprintf(allowed, "<nil>", "<nil>", "<nil>"))
}

// landlocked tries what the rules of TestLandlockNetwork are about.
func landlocked(args []string) {
	errno := func(err error) error {
		var e syscall.Errno
		if errors.As(err, &e) {
			return e
		}
		return err
	}
	dial := func(network, address string) error {
		c, err := net.DialTimeout(network, address, 30*time.Second)
		if err == nil {
			c.Close()
		}
		return errno(err)
	}
	bind := func(address string) error {
		var cfg net.ListenConfig
		cfg.SetMultipathTCP(false) // is another protocol
		l, err := cfg.Listen(context.Background(), "tcp4", address)
		if err == nil {
			l.Close()
		}
		return errno(err)
	}
	fmt.Println("connect", dial("tcp4", "127.0.0.1:"+args[0]))
	fmt.Println("other", dial("tcp4", "127.0.0.1:"+args[1]))
	fmt.Println("bind", bind("127.0.0.1:"+args[2]))
	fmt.Println("any", bind("127.0.0.1:0"))
	fmt.Println("abstract", dial("unix", args[3]))
	pid := 0
	fmt.Sscan(args[4], &pid)
	report := func(err error) error {
		if err == nil {
			return nil
		}
		return errno(err)
	}
	fmt.Println("signal", report(unix.Kill(pid, 0)))
	fmt.Println("own signal", report(unix.Kill(os.Getpid(), 0)))
}

// TestLandlockFaults takes the calls away one by one: without one of them nothing is started.
func TestLandlockFaults(t *testing.T) {
	needLandlock(t, 3)
	leak.Check(t)
	cfg := landlockConfig(t, Landlock{ReadOnly: []string{"/data"}})
	p := &Process{Args: []string{"/bin/true"}}
	pl := planOf(t, cfg, p)
	for _, call := range []string{"landlock_create_ruleset(", "landlock_add_rule(", "landlock_restrict_self("} {
		c, err := New(t.TempDir(), "fault", cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.fault = &launch.Fault{Op: callIn(t, pl, call), Errno: injected}
		wantError(t, c.Run(context.Background(), &Process{Args: p.Args}), "landlock", injected)
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	}
}
