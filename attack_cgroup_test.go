//go:build linux

package container

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file attacks limits from inside. The attacker is the test binary, as a program of the container.

const cgroupAttackVar = "CONTAINER_TEST_CGROUP_ATTACK"

func init() {
	switch stage := os.Getenv(cgroupAttackVar); stage {
	case "":
	case "below":
		cgroupAttackLimits("from a namespace further down")
		os.Exit(0)
	default:
		if err := cgroupAttack(); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// cgroupAttack mounts the tree in namespaces of its own, of which it is root; then it makes a cgroup and goes there, and makes
// a cgroup namespace there: what it then sees above is not the root of its namespace, where the kernel
// protects the limits.
func cgroupAttack() error {
	if os.Getenv(cgroupAttackVar) == "start" {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{cgroupAttackVar + "=inside"}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		return cmd.Run()
	}
	if err := unix.Mount("cgroup2", "/tmp", "cgroup2", 0, ""); err != nil {
		return err
	}
	fmt.Println("mounted")
	cgroupAttackLimits("from the root of the namespace")
	if err := os.Mkdir("/tmp/below", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("/tmp/below/cgroup.procs", []byte(fmt.Sprint(os.Getpid())), 0); err != nil {
		return err
	}
	fmt.Println("moved")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{cgroupAttackVar + "=below"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWCGROUP}
	return cmd.Run()
}

// cgroupAttackLimits takes all limits away that it can see, which is nothing above the namespace's root.
func cgroupAttackLimits(where string) {
	files, _ := filepath.Glob("/tmp/*.max")
	for _, file := range files {
		if err := os.WriteFile(file, []byte("max"), 0); err == nil {
			fmt.Println("raised", file, where)
		}
	}
	if _, err := os.Stat("/tmp/" + insideCgroup); err == nil {
		fmt.Println("the limits are seen", where)
	}
}

// A process that has the user id that the cgroup belongs to cannot raise the container's limits.
func TestAttackCgroupLimits(t *testing.T) {
	for _, delegate := range []bool{false, true} {
		t.Run(fmt.Sprintf("delegate %v", delegate), func(t *testing.T) {
			leak.Check(t)
			cfg := cgroupConfig(t)
			var file, want string
			switch {
			case testenv.CgroupController("pids").Probe() == nil:
				file, want = "pids.max", "200\n"
				cfg.Resources = &Resources{Pids: &PidsResources{Max: new(int64(200))}}
			case testenv.CgroupController("hugetlb").Probe() == nil:
				file, want = "hugetlb.2MB.max", "4194304\n"
				cfg.Resources = &Resources{Hugetlb: map[string]HugetlbResources{"2MB": {Max: new(int64(4 << 20))}}}
			default:
				t.Skip("there is no controller")
			}
			cfg.Cgroup.Delegate = delegate
			cfg.Seccomp = nil // the limits are to hold without
			attackerIn(t, cfg.Root.Dir)
			cfg.Mounts = append(cfg.Mounts, Mount{Type: "tmpfs", Target: "/tmp"})
			var out strings.Builder
			p := &Process{Args: []string{"/attacker"}, Env: []string{cgroupAttackVar + "=start"}, Stdout: &out, Stderr: &out}
			c := lifeStart(t, cfg, p)
			err := lifeWait(t, c.Wait)
			if got := cgroupText(t, c, file); got != want {
				t.Errorf("%s is %q", file, got)
			}
			// With Delegate it has controllers, for cgroups of its own. What is above them are the limits.
			if err != nil || !delegate && out.String() != "mounted\nmoved\n" || !strings.Contains(out.String(), "\nmoved\n") || strings.Contains(out.String(), "are seen") {
				t.Errorf("the attacker: %v\n%s", err, &out)
			}
		})
	}
}
