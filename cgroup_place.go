//go:build linux

package container

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// This file decides where a container's cgroup is going to be. It reads and changes nothing; the decision goes into the
// container's record before cgroup_prepare.go carries it out, so that another process can undo what a killed one has begun.

// A cgroupPlace is where a cgroup is going to be made. Nothing has been made yet.
type cgroupPlace struct {
	Manager CgroupManager `json:"manager"`          // CgroupFS or CgroupSystemd
	Parent  string        `json:"parent,omitempty"` // the cgroup in which it is made, as /proc/PID/cgroup has it; systemd: empty until prepare has made the scope
	Name    string        `json:"name"`             // the last element
	Top     string        `json:"top,omitempty"`    // controllers are the caller's to enable from this cgroup on, down to Parent
	Shared  bool          `json:"shared,omitempty"` // Parent is the caller's own cgroup or below: its processes must make room before controllers are enabled in it
	Kept    bool          `json:"kept,omitempty"`   // the cgroup has been there before, and stays

	Unit   string    `json:"unit,omitempty"`  // systemd: "container-ID-xxxxxxxx.scope"
	Slice  string    `json:"slice,omitempty"` // systemd: what the scope is in
	User   bool      `json:"user,omitempty"`  // systemd: the user's manager, not the system's
	Keeper processID `json:"keeper,omitzero"` // systemd: the process that keeps the scope; known when prepare has returned
}

// path is the cgroup's path, once the parent is known.
func (p *cgroupPlace) path() string { return path.Join(p.Parent, p.Name) }

const (
	rootParent    = "/container"        // of root's containers
	callersLeaf   = "container-callers" // below the caller's own cgroup: the caller, and what was with it
	scopeChild    = "container"         // in a scope: the container's cgroup
	scopeKeeper   = "keeper"            // in a scope: that of the keeper
	maxCgroupName = 255
	maxUnitName   = 255
)

// place decides. Cfg may be nil. RecordDir is the container's record: two state directories can have the same id.
func (cfg *CgroupConfig) place(id, recordDir string) (cgroupPlace, error) {
	if cfg == nil {
		cfg = &CgroupConfig{}
	}
	if dir, err := filepath.Abs(recordDir); err == nil {
		recordDir = dir
	}
	return cfg.decide(askPlaceFacts(), id, recordDir)
}

// decide is place, given the facts.
func (cfg *CgroupConfig) decide(f *placeFacts, id, recordDir string) (cgroupPlace, error) {
	mark := sha256.Sum256([]byte(recordDir))
	suffix := "-" + hex.EncodeToString(mark[:4])
	name := cmp.Or(cfg.Name, cut(id, maxCgroupName-len(suffix))+suffix)
	switch isSlice := cfg.Parent != "" && !strings.HasPrefix(cfg.Parent, "/"); {
	case cfg.Manager == CgroupSystemd, cfg.Manager == CgroupAuto && isSlice:
		return cfg.systemdPlace(f, id, suffix)
	case f.treeErr != nil:
		return cgroupPlace{}, f.treeErr
	case cfg.Path != "":
		return cfg.treePlace(f, cfg.Path), nil
	case cfg.Parent != "":
		return cfg.treePlace(f, path.Join(cfg.Parent, name)), nil
	}
	if own, ok := f.delegated(); ok {
		return cfg.treePlace(f, path.Join(own, name)), nil
	}
	switch {
	case f.root:
		return cfg.treePlace(f, path.Join(rootParent, name)), nil
	case cfg.Manager == CgroupAuto && f.systemd:
		return cfg.systemdPlace(f, id, suffix)
	}
	return cgroupPlace{}, f.noPlace()
}

// named tells whether the caller has chosen the place by its name, so that others can have made a cgroup there.
func (cfg *CgroupConfig) named() bool { return cfg != nil && (cfg.Path != "" || cfg.Name != "") }

// treePlace is a place in the file system.
func (cfg *CgroupConfig) treePlace(f *placeFacts, full string) cgroupPlace {
	p := cgroupPlace{Manager: CgroupFS, Parent: path.Dir(full), Name: path.Base(full)}
	levels := f.chain(full)
	if len(levels) > 0 && levels[0].path == full {
		p.Kept, levels = cfg.named(), levels[1:]
	}
	p.Top = f.top(levels)
	own := f.ownParent()
	for _, l := range levels {
		// The root of the tree may have processes and children at the same time.
		p.Shared = p.Shared || l.path == own && !l.treeRoot
	}
	return p
}

func (cfg *CgroupConfig) systemdPlace(f *placeFacts, id, suffix string) (cgroupPlace, error) {
	if !f.systemd {
		return cgroupPlace{}, &Error{Op: "cgroup", Err: ErrUnsupported, Remedy: "systemd does not run here (no /run/systemd/system): set Cgroup.Manager to CgroupFS"}
	}
	slice := "user.slice"
	if f.root {
		slice = "system.slice"
	}
	const after = ".scope"
	unit := unitText("container-"+id, maxUnitName-len(suffix)-len(after)) + suffix + after
	switch {
	case strings.HasSuffix(cfg.Name, after):
		unit = cfg.Name
	case cfg.Name != "":
		unit = unitText(cfg.Name, maxUnitName-len(after)) + after
	}
	return cgroupPlace{
		Manager: CgroupSystemd, Name: scopeChild,
		Unit: unit, Slice: cmp.Or(cfg.Parent, slice), User: !f.root,
	}, nil
}

// cut shortens s to n bytes. All characters of an id have one.
func cut(s string, n int) string { return s[:min(n, len(s))] }

// unitText is an id, or the name of a cgroup, as part of the name of a unit, in at most n bytes. See systemd-escape(1).
func unitText(name string, n int) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		text := string(rune(c))
		switch {
		case c == '/':
			text = "-"
		case (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && !strings.Contains(":-_.", text):
			text = fmt.Sprintf(`\x%02x`, c)
		}
		if b.Len()+len(text) > n {
			break
		}
		b.WriteString(text)
	}
	return b.String()
}
