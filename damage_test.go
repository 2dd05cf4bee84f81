//go:build linux

package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
)

// This file damages the records of containers that have processes: Destroy ends them all the same, and no
// others.

var damageFull = flag.Bool("damage.full", false, "cut off each byte, and change each bit")

// damages are what becomes of a file with this text. A nil one was done in place.
func damages(t testing.TB, path string, text []byte) map[string]func() ([]byte, error) {
	set := make(map[string]func() ([]byte, error))
	cuts, flips := max(len(text)/12, 1), max(len(text)*8/25, 1)|1 // odd, so that all bits have their turn
	if *damageFull {
		cuts, flips = 1, 1
	}
	for n := 0; n < len(text); n += cuts {
		set[fmt.Sprint("cut at ", n)] = func() ([]byte, error) { return text[:n], nil }
	}
	for bit := 0; bit < len(text)*8; bit += flips {
		set[fmt.Sprint("bit ", bit)] = func() ([]byte, error) {
			text := bytes.Clone(text)
			text[bit/8] ^= 1 << (bit % 8)
			return text, nil
		}
	}
	set["newer"] = func() ([]byte, error) {
		var all map[string]any
		err := json.Unmarshal(text, &all)
		all["version"], all["future"] = 2, map[string]any{"pid": 1}
		out, merr := json.Marshal(all)
		return out, errors.Join(err, merr)
	}
	set["link"] = func() ([]byte, error) {
		return nil, errors.Join(os.Rename(path, path+".away"), os.Symlink(path+".away", path))
	}
	if os.Geteuid() == 0 {
		set["another user's"] = func() ([]byte, error) { return nil, os.Chown(path, 12345, 12345) }
	}
	return set
}

func TestDamage(t *testing.T) {
	leak.Check(t)
	crashAdopt(t)
	t.Cleanup(func() { crashWait() })
	bystander := exec.Command("sleep", "1000")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := bystander.Process.Kill(); err != nil {
			t.Errorf("the bystander is dead: %v", err)
		}
		if err := bystander.Wait(); err.Error() != "signal: killed" {
			t.Error(err)
		}
	}()
	kinds := createKinds(t)
	neighbor := lifeStart(t, kinds["plain"], &Process{Args: []string{"sleep", "1000"}})
	for _, name := range []string{"plain", "detached", "no PID namespace", "detached, no PID namespace"} {
		for _, hold := range []bool{false, true} {
			for _, file := range []string{"state.json", "config.json"} {
				if hold && file == "config.json" {
					continue
				}
				t.Run(fmt.Sprintf("%s, held %v, %s", name, hold, file), func(t *testing.T) {
					dir := t.TempDir()
					text := damageSample(t, dir, kinds[name], hold, file)
					for damage, do := range damages(t, dir+"/x/"+file, text) {
						soon(t, damage, func() time.Duration { return damageOne(t, dir, kinds[name], hold, file, damage, do) })
					}
				})
			}
		}
	}
	if status, err := neighbor.Status(); status != StatusRunning {
		t.Errorf("another container is %s, %v", status, err)
	}
}

// damageStart starts a container.
func damageStart(t testing.TB, dir string, cfg Config, hold bool) (*Container, *Process) {
	t.Helper()
	c, err := New(dir, "x", cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := crashProcess()
	if hold {
		err = c.Create(context.Background(), p)
	} else {
		err = c.Run(context.Background(), p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, p
}

func damageSample(t testing.TB, dir string, cfg Config, hold bool, file string) []byte {
	t.Helper()
	c, _ := damageStart(t, dir, cfg, hold)
	text, err := os.ReadFile(c.record.path(file))
	if err := errors.Join(err, c.Destroy()); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	return text
}

// damageOne returns how long it took until the processes had gone.
func damageOne(t testing.TB, dir string, cfg Config, hold bool, file, damage string, do func() ([]byte, error)) (took time.Duration) {
	t.Helper()
	c, p := damageStart(t, dir, cfg, hold)
	text, err := os.ReadFile(c.record.path(file))
	if err != nil {
		t.Fatal(err)
	}
	// The text that is damaged is that of this container: the sample's pid is another.
	sample := damages(t, c.record.path(file), text)[damage]
	if sample == nil { // this one is shorter
		sample = do
	}
	changed, derr := sample()
	if derr == nil && changed != nil {
		derr = os.WriteFile(c.record.path(file), changed, 0o600)
	}
	if derr != nil {
		t.Fatal(derr)
	}
	began := time.Now()
	other, err := Load(dir, "x")
	if err == nil {
		other.State()
		err = other.Destroy()
	}
	if err != nil {
		t.Errorf("%s: %v after %v", damage, err, time.Since(began))
	}
	select {
	case <-p.live.ended:
	case <-time.After(30 * time.Second):
		t.Errorf("%s: the process lives:\n%s", damage, changed)
		c.endOwn()
	}
	took = time.Since(began)
	c.Wait()
	if _, err := os.Lstat(dir + "/x"); !errors.Is(err, fs.ErrNotExist) {
		left, _ := os.ReadDir(dir + "/x")
		t.Errorf("%s: left behind: %v, %v", damage, left, err)
		os.RemoveAll(dir + "/x")
	}
	return took
}

// A number that is another process's by now kills nobody, wherever it stands.
func TestReusedNumber(t *testing.T) {
	leak.Check(t)
	kinds := createKinds(t)
	for _, name := range []string{"plain", "detached"} {
		bystander := exec.Command("sleep", "1000")
		if err := bystander.Start(); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		c, p := damageStart(t, dir, kinds[name], false)
		lifeForge(t, c, func(s *ContainerState) { s.Pid = bystander.Process.Pid })
		other, err := Load(dir, "x")
		if err != nil {
			t.Fatal(err)
		}
		// The launcher's own record still knows the right one.
		if err := other.Destroy(); err != nil {
			t.Error(err)
		}
		p.live.await(t)
		c.Wait()

		c, p = damageStart(t, dir, kinds[name], false)
		text, _ := os.ReadFile(c.record.path(startFile))
		text = []byte(strings.Replace(string(text), "\n"+itoa(p.Pid())+" ", "\n"+itoa(bystander.Process.Pid)+" ", 1))
		if err := errors.Join(os.WriteFile(c.record.path(startFile), text, 0o600), os.Truncate(c.record.path("state.json"), 3)); err != nil {
			t.Fatal(err)
		}
		if other, err = Load(dir, "x"); err != nil {
			t.Fatal(err)
		}
		if err := other.Destroy(); err != nil {
			t.Error(err)
		}
		if err := c.endOwn(); err != nil {
			t.Error(err)
		}
		c.Wait()
		if err := bystander.Process.Kill(); err != nil {
			t.Errorf("an innocent process was killed: %v", err)
		}
		bystander.Wait()
	}
}
