//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file attacks the life cycle: the caller and the launcher, from processes of the container, while it
// waits at the gate, runs, and ends.

func init() {
	if what := os.Getenv(attackLifeVar); what != "" {
		time.AfterFunc(5*time.Minute, func() { os.Exit(3) })
		map[string]func([]string){"leader": leaderExits, "gate": takeDescriptors, "daemon": leaveDaemon}[what](os.Args[1:])
		os.Exit(0)
	}
}

// attackLifeVar is attackVar for the attackers of this file.
const attackLifeVar = "CONTAINER_TEST_ATTACK_LIFE"

// leaderExits ends its first thread; the others go on.
func leaderExits([]string) {
	fmt.Println("ready")
	unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
}

// takeDescriptors takes all descriptors it can get of launchers and reapers, and keeps them. With "steal" it
// reads what it can from them too.
func takeDescriptors(args []string) {
	fmt.Println("ready")
	for kept := map[string]bool{}; ; {
		for _, pid := range pidsInSight() {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if !strings.HasPrefix(string(text), "container:") {
				continue
			}
			pidfd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue
			}
			for target := 3; target < 12; target++ {
				fd, err := unix.PidfdGetfd(pidfd, target, 0)
				if err != nil {
					continue
				}
				var st unix.Stat_t
				unix.Fstat(fd, &st)
				kind := map[uint32]string{unix.S_IFIFO: "FIFO", unix.S_IFSOCK: "socket"}[st.Mode&unix.S_IFMT]
				if key := fmt.Sprint(pid, target, st.Ino); !kept[key] {
					kept[key] = true
					fmt.Println("took", kind)
					if len(args) > 0 && kind == "FIFO" {
						go func() {
							for buf := make([]byte, 1); ; {
								unix.Read(fd, buf)
							}
						}()
					}
				} else {
					unix.Close(fd)
				}
			}
			unix.Close(pidfd)
		}
	}
}

// leaveDaemon leaves a process behind that attacks.
func leaveDaemon([]string) {
	out, err := os.OpenFile("/taken", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err == nil {
		_, err = os.StartProcess("/attacker", []string{"/attacker"}, &os.ProcAttr{Env: []string{attackLifeVar + "=gate"}, Files: []*os.File{nil, out, nil}})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for range 20_000 {
		if text, _ := os.ReadFile("/taken"); strings.Contains(string(text), "ready") {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// The first thread of a process ends, and it looks like a zombie: a naive runtime takes the container for
// stopped, removes its record, and leaves it running.
func TestAttackLeaderExits(t *testing.T) {
	leak.Check(t)
	for name, cfg := range createKinds(t) {
		if cfg.Init || strings.Contains(name, "joined") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			cfg.Root = Directory(busyboxRoot(t))
			attackerIn(t, cfg.Root.Dir)
			out, stdout := pipe(t)
			c := lifeStart(t, cfg, &Process{Args: []string{"/attacker"}, Env: []string{attackLifeVar + "=leader"}, Stdout: stdout})
			stdout.Close()
			readLine(t, out)
			stat := fmt.Sprintf("/proc/%d/stat", c.Pid())
			for text := []byte(nil); !strings.Contains(string(text), ") Z "); time.Sleep(time.Millisecond) {
				var err error
				if text, err = os.ReadFile(stat); err != nil {
					t.Fatal(err)
				}
			}
			createStatus(t, c, StatusRunning)
			other := createLoaded(t, c)
			if list, err := other.Processes(); err != nil || !slices.Equal(list, []int{c.Pid()}) {
				t.Errorf("the processes are %v, %v", list, err)
			}
			if err := lifeWait(t, other.Destroy); err != nil {
				t.Fatal(err)
			}
			select {
			case <-c.proc.live.ended:
			case <-time.After(30 * time.Second):
				t.Error("it runs on, and its record is gone")
			}
		})
	}
}

// A process that is not in a namespace of the first one hides behind it in the same way.
func TestAttackHiddenLeader(t *testing.T) {
	leak.Check(t)
	cfg := createKinds(t)["no PID namespace"]
	cfg.Root = Directory(busyboxRoot(t))
	attackerIn(t, cfg.Root.Dir)
	out, stdout := pipe(t)
	c := lifeStart(t, cfg, &Process{
		Args: []string{"sh", "-c", "(setsid /attacker &); sleep 1000"}, Env: []string{attackLifeVar + "=leader"}, Stdout: stdout})
	stdout.Close()
	readLine(t, out)
	for n := 0; n != 2; time.Sleep(time.Millisecond) { // until sh has become sleep, or has both
		list, err := c.Processes()
		if err != nil {
			t.Fatal(err)
		}
		n = len(list)
		for _, pid := range list {
			if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); strings.Contains(string(text), ") Z ") {
				n = 2
			}
		}
	}
	if err := c.Destroy(); err != nil {
		t.Fatal(err)
	}
	readAll(t, out) // its end: all that had it are dead
}

// The number of the first process has become another's since the record was read: its namespaces are the
// host's, and SIGKILL would go to all who are in them.
func TestAttackReusedPid(t *testing.T) {
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	var st stored
	st.Pid, st.StartTime = os.Getpid(), start-1
	ns := Namespaces{NewMnt: true}
	list, err := st.members(&ns)
	if err != nil || len(list) != 0 {
		t.Errorf("%d processes of the host's are taken for the container's, %v", len(list), err)
	}
}

// shareWith makes a configuration of a container that shares PID and user namespace with another.
func shareWith(t *testing.T, c *Container) Config {
	t.Helper()
	cfg := attackConfig(t)
	cfg.Namespaces.NewPID, cfg.Namespaces.NewUser = false, false
	paths, err := c.NamespacePaths()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Namespaces.Join = map[NamespaceKind]string{PIDNamespace: paths[PIDNamespace], UserNamespace: paths[UserNamespace]}
	return cfg
}

// A neighbour in the same PID namespace takes the descriptors of a launcher at the gate. With the socket it could
// name the process that the caller kills; with the FIFOs, held open, Start would never end.
func TestAttackGateNeighbour(t *testing.T) {
	leak.Check(t)
	cfg := attackConfig(t)
	attackerIn(t, cfg.Root.Dir)
	out, stdout := pipe(t)
	a := lifeStart(t, cfg, &Process{Args: []string{"/attacker"}, Env: []string{attackLifeVar + "=gate"}, Stdout: stdout, Stderr: stdout})
	stdout.Close()
	readLine(t, out)
	for range 20 {
		c := lifeNew(t, shareWith(t, a))
		if err := c.Create(t.Context(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() != 0 {
			for range 2 {
				out.SetReadDeadline(time.Now().Add(30 * time.Second))
				if line := readLine(t, out); line != "took FIFO" {
					t.Errorf("it %s", line)
				}
			}
		}
		if err := lifeWait(t, func() error { return c.Start(context.Background()) }); err != nil {
			t.Fatal(err)
		}
		createStatus(t, c, StatusRunning)
		if err := lifeWait(t, c.Destroy); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Destroy(); err != nil {
		t.Fatal(err)
	}
	out.SetReadDeadline(time.Time{})
	if rest := readAll(t, out); os.Geteuid() == 0 && rest != "" || strings.Contains(rest, "socket") {
		t.Errorf("%s", rest)
	}
}

// A process that was executed in the container before its start steals the byte that opens the gate. Start
// then waits, but neither for longer than its context nor than the process lives.
func TestAttackGateThief(t *testing.T) {
	leak.Check(t)
	testenv.Need(t, testenv.UserNS)
	cfg := attackConfig(t)
	attackerIn(t, cfg.Root.Dir)
	c := lifeNew(t, cfg)
	if err := c.Create(t.Context(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	out, stdout := pipe(t)
	p := &Process{Args: []string{"/attacker", "steal"}, Env: []string{attackLifeVar + "=gate"}, Stdout: stdout}
	if err := c.Exec(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	stdout.Close()
	readLine(t, out)
	if os.Geteuid() != 0 {
		readLine(t, out)
		readLine(t, out)
	}
	started := make(chan error, 1)
	go func() { started <- createLoaded(t, c).Start(context.Background()) }()
	select {
	case err := <-started: // the launcher was faster, or there was nothing to steal
		if err != nil {
			t.Error(err)
		}
		return
	case <-time.After(300 * time.Millisecond):
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	lifeWait(t, func() error { return <-started })
	if err := lifeWait(t, c.Destroy); err != nil {
		t.Fatal(err)
	}
	p.Wait()
}

// What a hook of the container has left behind looks for the socket in the reaper and in the program before
// its execve.
func TestAttackReaperSocket(t *testing.T) {
	leak.Check(t)
	cfg := attackConfig(t)
	attackerIn(t, cfg.Root.Dir)
	cfg.Init = true
	cfg.Hooks = &Hooks{StartContainer: []Hook{{Path: "/attacker", Env: []string{attackLifeVar + "=daemon"}}}}
	for range 30 {
		c := lifeStart(t, cfg, &Process{Args: []string{"true"}})
		lifeWait(t, c.Wait)
		if err := c.Destroy(); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(cfg.Root.Dir, "taken"))
	if err != nil || !strings.Contains(string(text), "ready") || strings.Contains(string(text), "took") {
		t.Errorf("%s, %v", text, err)
	}
}

// The reaper's memory and executable hold what the configuration says: paths of the host, and the environment
// of hooks.
func TestAttackReaperMemory(t *testing.T) {
	leak.Check(t)
	testenv.Need(t, testenv.Root)
	cfg := attackConfig(t)
	cfg.Init = true
	cfg.Hooks = &Hooks{CreateContainer: []Hook{{Path: "/bin/true", Env: []string{"TOKEN=" + strings.Repeat("s3cret", 3)}}}}
	got := sh(t, cfg, `for f in exe mem; do cat /proc/1/$f 2>/dev/null | grep -c "$(printf '%s' s3cret s3cret)"; done; readlink /proc/1/exe; ls /proc/1/fd 2>/dev/null | wc -l`)
	wantText(t, got, "0\n0\n0")
}

// While the caller copies into the container, that mounts a file of the host's over what was made: the
// caller would give it away.
func TestAttackCopyToMounted(t *testing.T) {
	inMountNamespace(t, func(t *testing.T) {
		dir := t.TempDir()
		writeTree(t, dir, map[string]string{"canary": "x", "d/link": "-> x", "d/file": "x", "d/sub/": "", "other/": ""})
		mount(t, dir+"/canary", dir+"/d/file", "", unix.MS_BIND)
		mount(t, dir+"/other", dir+"/d/sub", "", unix.MS_BIND)
		parent, err := unix.Open(dir+"/d", unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(parent)
		a := fileAttrs{mode: 0o777}
		if err := ownMade(parent, "link", unix.S_IFLNK, a); err != nil {
			t.Error(err)
		}
		for _, kind := range []uint32{unix.S_IFLNK, unix.S_IFIFO, unix.S_IFREG} {
			if err := ownMade(parent, "file", kind, a); !errors.Is(err, unix.EXDEV) {
				t.Errorf("%o: %v", kind, err)
			}
		}
		if fd, err := openMade(parent, "sub", unix.O_RDONLY|unix.O_DIRECTORY); err == nil {
			unix.Close(fd)
			t.Error("a directory that is mounted there was opened")
		}
		var st unix.Stat_t
		if err := unix.Stat(dir+"/canary", &st); err != nil || st.Mode&0o777 == 0o777 {
			t.Errorf("the host's file has the mode %o, %v", st.Mode, err)
		}
	})
}

// Whoever has the launcher's socket names a process that is not the container's, for the caller to kill.
func TestAttackNamedProcess(t *testing.T) {
	child, err := os.StartProcess("/proc/self/exe", []string{"sleeper"}, &os.ProcAttr{Env: []string{attackLifeVar + "=leader"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { child.Kill(); child.Wait() }()
	s := &starting{plan: &plan{cfg: &Config{}}}
	for _, pid := range []int{1, os.Getpid(), os.Getppid(), 0, -1, -unix.Getpgrp(), 1 << 30} {
		if s.setInner(pid) == nil {
			t.Errorf("%d is taken for the container's", pid)
		}
	}
	if err := s.setInner(child.Pid); err != nil {
		t.Error(err)
	}
	unix.Close(s.innerFD)
}

// A record that is damaged has hooks of the end, which get a state that does not exist.
func TestAttackDamagedPoststop(t *testing.T) {
	cfg := attackConfig(t)
	ran := filepath.Join(t.TempDir(), "ran")
	cfg.Hooks = &Hooks{Poststop: []Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >" + ran}}}}
	c := lifeNew(t, cfg)
	if err := os.WriteFile(c.record.path("state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := Load(filepath.Dir(c.record.dir), c.ID())
	if err != nil {
		t.Logf("Load: %v", err)
		other = c
	}
	if err := other.Destroy(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(ran); err != nil || !strings.Contains(string(text), `"status":"stopped"`) {
		t.Errorf("%s, %v", text, err)
	}
}
