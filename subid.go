//go:build linux

package container

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// This file finds the subordinate ids of the caller; see subuid(5). It runs in the caller's process.
// What it finds is a proposal: newuidmap(1) checks it against the same files with its own rights.

// SubordinateIDs returns maps in which the caller's own ids are 0 inside, and the ranges that
// /etc/subuid and /etc/subgid give to the caller, by name or by number, follow from 1 on. Files of
// several owners can be unpacked and kept apart with them.
//
// The error wraps ErrUnsupported if the caller has no ranges, and tells how to get some.
func SubordinateIDs() (uid, gid []IDMap, err error) {
	self := os.Geteuid()
	var name string
	if u, err := user.LookupId(strconv.Itoa(self)); err == nil {
		name = u.Username
	}
	// Both files go by the user: /etc/subgid too lists users and not groups.
	uid, err = subordinateMap("/etc/subuid", "--add-subuids", name, self, self)
	if err != nil {
		return nil, nil, err
	}
	gid, err = subordinateMap("/etc/subgid", "--add-subgids", name, self, os.Getegid())
	if err != nil {
		return nil, nil, err
	}
	return uid, gid, nil
}

// subordinateMap reads one of the two files for a user. own is the caller's id that becomes 0.
func subordinateMap(path, option, name string, self, own int) ([]IDMap, error) {
	var ranges []subIDRange
	f, err := os.Open(path)
	if err == nil {
		ranges, err = parseSubIDs(f)
		f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Op: "read subordinate ids", Path: path, Err: err}
	}
	maps := subIDMap(ranges, name, self, own)
	if len(maps) > 1 {
		return maps, nil
	}
	owner := name
	if owner == "" {
		owner = strconv.Itoa(self)
	}
	first := freeSubIDs(ranges)
	return nil, &Error{
		Op:     "read subordinate ids",
		Path:   path,
		Err:    fmt.Errorf("%w: no range of ids for user %s", ErrUnsupported, owner),
		Remedy: fmt.Sprintf("as root: usermod %s %d-%d %s", option, first, first+65535, owner),
	}
}

// subIDRange is a line of /etc/subuid or /etc/subgid: count ids, from start on, belong to owner.
type subIDRange struct {
	owner        string // a user's name, or a number
	start, count uint32
}

// parseSubIDs reads the lines of /etc/subuid or /etc/subgid. As the tools of shadow do, it passes
// over lines that it cannot make sense of.
func parseSubIDs(r io.Reader) ([]subIDRange, error) {
	var ranges []subIDRange
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) != 3 || fields[0] == "" {
			continue
		}
		start, err1 := parseDecimal(fields[1], math.MaxUint32-1)
		count, err2 := parseDecimal(fields[2], math.MaxUint32)
		if err1 != nil || err2 != nil || count == 0 || start+count > math.MaxUint32 {
			continue
		}
		ranges = append(ranges, subIDRange{fields[0], uint32(start), uint32(count)})
	}
	return ranges, lines.Err()
}

// subIDMap lines up the ranges of one user behind the user's own id. A range that overlaps with what is
// mapped already is left out, and so is what would make the map longer than the kernel allows.
func subIDMap(ranges []subIDRange, name string, self, own int) []IDMap {
	maps := []IDMap{{ContainerID: 0, HostID: own, Size: 1}}
	next := 1
	for _, r := range ranges {
		if (name == "" || r.owner != name) && r.owner != strconv.Itoa(self) {
			continue
		}
		if uint64(r.start)+uint64(r.count) > math.MaxInt {
			continue // an int of 32 bits, which syscall.SysProcIDMap has, cannot say it
		}
		more := append(maps[:len(maps):len(maps)], IDMap{ContainerID: next, HostID: int(r.start), Size: int(r.count)})
		if checkIDMaps("", more) != nil {
			continue
		}
		maps, next = more, next+int(r.count)
	}
	return maps
}

// freeSubIDs returns the first id after all ranges, and not below what useradd(8) starts with.
func freeSubIDs(ranges []subIDRange) uint32 {
	first := uint32(100000)
	for _, r := range ranges {
		if end := r.start + r.count; end > first && end < math.MaxInt32-65536 {
			first = end
		}
	}
	return first
}
