//go:build linux

package container

import (
	"bytes"
	"strings"
)

// This file reads the texts whose keys are names of things: devices, resources, interfaces. See stats_parse.go.

// parseRDMA reads rdma.current, "mlx4_0 hca_handle=2 hca_object=2000", or the same lines of rdma.max.
func parseRDMA(into *map[string]RDMAStats, text []byte, limits bool) bool {
	for len(text) > 0 {
		var line, word []byte
		line, text = cutLine(text)
		word, line = cutSpace(line)
		if len(word) == 0 {
			return false
		}
		s, known := (*into)[string(word)]
		if !known {
			s.HCAHandlesMax, s.HCAObjectsMax = Unlimited, Unlimited
		}
		name := string(word)
		for len(line) > 0 {
			word, line = cutSpace(line)
			key, value, ok := cutPair(word)
			if !ok {
				if len(word) == 0 {
					continue // a space at the end
				}
				return false
			}
			n, max := &s.HCAHandles, &s.HCAHandlesMax
			switch string(key) {
			case "hca_handle":
			case "hca_object":
				n, max = &s.HCAObjects, &s.HCAObjectsMax
			default:
				continue
			}
			if limits {
				*max, ok = limitOf(value)
			} else {
				*n, ok = parseUint(value)
			}
			if !ok {
				return false
			}
		}
		put(into, name, s)
	}
	return true
}

// put sets an element of a map that is made when it is needed.
func put[V any](into *map[string]V, key string, value V) {
	if *into == nil {
		*into = map[string]V{}
	}
	(*into)[key] = value
}

// parseMisc reads a file of the misc controller, "sev 3", or of misc.events, "sev.max 2", and hands each number to set.
func parseMisc(into *map[string]MiscStats, text []byte, set func(s *MiscStats, value []byte) bool) bool {
	for len(text) > 0 {
		var line []byte
		line, text = cutLine(text)
		word, value := cutSpace(line)
		name := string(word)
		if name == "" {
			return false
		}
		s, known := (*into)[name]
		if !known {
			s.Max = Unlimited
		}
		if !set(&s, value) {
			return false
		}
		put(into, name, s)
	}
	return true
}

func (s *MiscStats) parseCurrent(value []byte) (ok bool) {
	s.Current, ok = parseUint(value)
	return ok
}

func (s *MiscStats) parsePeak(value []byte) (ok bool) {
	s.Peak, ok = parseUint(value)
	return ok
}

func (s *MiscStats) parseMax(value []byte) (ok bool) {
	s.Max, ok = limitOf(value)
	return ok
}

// parseMiscEvents reads misc.events.
func parseMiscEvents(into map[string]MiscStats, text []byte) bool {
	return parseFlat(text, func(key []byte, n uint64) {
		name, ok := strings.CutSuffix(string(key), ".max")
		if s, known := into[name]; ok && known {
			s.MaxEvents = n
			into[name] = s
		}
	})
}

// parseInterfaces reads /proc/PID/net/dev: two lines of headings, then "  eth0: " and sixteen numbers.
func parseInterfaces(text []byte) (list []InterfaceStats, ok bool) {
	for range 2 {
		var line []byte
		if line, text = cutLine(text); !bytes.ContainsRune(line, '|') {
			return nil, false
		}
	}
	list = make([]InterfaceStats, 0, bytes.Count(text, []byte("\n"))+1)
	for len(text) > 0 {
		var line []byte
		line, text = cutLine(text)
		name, line, found := bytes.Cut(line, []byte(":"))
		name = bytes.TrimLeft(name, " ")
		if !found || len(name) == 0 {
			return nil, false
		}
		var n [16]uint64
		for i := range n {
			var word []byte
			word, line = cutSpace(bytes.TrimLeft(line, " "))
			if n[i], ok = parseUint(word); !ok {
				return nil, false
			}
		}
		list = append(list, InterfaceStats{
			Name:    string(name),
			RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3],
			TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11],
		})
	}
	return list, true
}
