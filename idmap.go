package container

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
)

// This file holds the maps of user ids and group ids: the usual ones, their checks and their text.
// It runs in the caller's process and touches nothing. See user_namespaces(7).

// The kernel's limits on a map: lines since Linux 4.15, and bytes of a write, which must be less than a page.
const (
	maxIDMapLines = 340
	maxIDMapText  = 4096
)

// maxID is the highest id that is taken. Above it are ids that some program or other reads as
// negative, and 2^32-1 means "leave it" to setresuid(2) (CVE-2024-40635).
const maxID = 1<<31 - 2

// parseID parses an id strictly.
func parseID(s string) (uint32, error) {
	n, err := parseDecimal(s, maxID)
	return uint32(n), err
}

// KeepID returns maps in which the caller's own ids mean the same inside as outside. All other ids
// are unmapped: files of others appear as those of nobody, and there is no root.
//
// Equivalent to: unshare --user --map-current-user
func KeepID() (uid, gid []IDMap) {
	u, g := os.Geteuid(), os.Getegid()
	return []IDMap{{ContainerID: u, HostID: u, Size: 1}}, []IDMap{{ContainerID: g, HostID: g, Size: 1}}
}

// selfMap returns the default maps: the caller's own ids become 0.
//
// Equivalent to: unshare --user --map-root-user
func selfMap() (uid, gid []IDMap) {
	return []IDMap{{HostID: os.Geteuid(), Size: 1}}, []IDMap{{HostID: os.Getegid(), Size: 1}}
}

// checkIDMaps returns all complaints about a map, joined, each naming its line: UidMappings[2].
// They are the kernel's own, which it would answer with EINVAL. An empty map is no complaint here.
func checkIDMaps(field string, maps []IDMap) error {
	var errs fieldErrors
	if len(maps) > maxIDMapLines {
		errs.addf(field, "%d lines are more than the %d that the kernel takes", len(maps), maxIDMapLines)
		return errs.join()
	}
	for i, m := range maps {
		switch end := int64(math.MaxUint32); {
		case m.Size <= 0:
			errs.addf(index(field, i), "Size is %d; it must be at least 1", m.Size)
		case m.ContainerID < 0 || int64(m.ContainerID) > end-int64(m.Size):
			errs.addf(index(field, i), "ContainerID %d and Size %d leave the range of ids, 0 to %d", m.ContainerID, m.Size, end-1)
		case m.HostID < 0 || int64(m.HostID) > end-int64(m.Size):
			errs.addf(index(field, i), "HostID %d and Size %d leave the range of ids, 0 to %d", m.HostID, m.Size, end-1)
		}
	}
	if len(errs) > 0 {
		return errs.join() // the sums below would lie
	}
	for _, side := range []struct {
		name string
		id   func(IDMap) int
	}{
		{"ContainerID", func(m IDMap) int { return m.ContainerID }},
		{"HostID", func(m IDMap) int { return m.HostID }},
	} {
		order := make([]int, len(maps))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(i, j int) int { return cmp.Compare(side.id(maps[i]), side.id(maps[j])) })
		for k := 1; k < len(order); k++ {
			a, b := order[k-1], order[k]
			if int64(side.id(maps[a]))+int64(maps[a].Size) > int64(side.id(maps[b])) {
				errs.addf(index(field, max(a, b)), "overlaps with %s in %s", index(field, min(a, b)), side.name)
			}
		}
	}
	if n := len(idMapText(maps)); n >= maxIDMapText {
		errs.addf(field, "as text the map has %d bytes; the kernel takes less than %d", n, maxIDMapText)
	}
	return errs.join()
}

// mapToHost returns the host's id for an id of the container; false if it is not mapped.
func mapToHost(maps []IDMap, id uint32) (uint32, bool) {
	for _, m := range maps {
		if off := int64(id) - int64(m.ContainerID); off >= 0 && off < int64(m.Size) {
			return uint32(int64(m.HostID) + off), true
		}
	}
	return 0, false
}

// idMapText returns a map as it is written to /proc/PID/uid_map: "0 1000 1\n".
func idMapText(maps []IDMap) []byte {
	var b bytes.Buffer
	for _, m := range maps {
		fmt.Fprintf(&b, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	return b.Bytes()
}

// needsHelper tells whether an ordinary user with the id self needs newuidmap or newgidmap for this
// map: the kernel lets them map only their own id, and only alone.
func needsHelper(maps []IDMap, self uint32) bool {
	return len(maps) != 1 || maps[0].Size != 1 || int64(maps[0].HostID) != int64(self)
}
