//go:build linux

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
)

// TestRows runs each row once. The floor must take part: it needs nothing but a compiler.
func TestRows(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.StaticBusybox, testenv.Program("gcc", "gcc libc6-dev"))
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if r.name == "run" {
				testenv.Need(t, testenv.Root)
			}
			leak.Check(t)
			var out bytes.Buffer
			if err := bench(&out, 1, r.name); err != nil {
				t.Fatal(err)
			}
			if text := out.String(); !strings.Contains(text, "C floor ") {
				t.Error(text)
			}
		})
	}
}

func TestBadInput(t *testing.T) {
	for _, test := range []struct {
		rounds     int
		only, want string
	}{{0, "run", "no rounds"}, {1, "walk", "no such row: walk"}} {
		if err := bench(&bytes.Buffer{}, test.rounds, test.only); err == nil || err.Error() != test.want {
			t.Error(err)
		}
	}
}

func TestPrint(t *testing.T) {
	var out bytes.Buffer
	results := []result{
		{contender{name: oursName}, []time.Duration{3e6, 1e6, 2e6}},
		{contender{name: "other"}, []time.Duration{9e6, 8e6, 1e6}},
	}
	row{name: "row", about: "about"}.print(&out, results, []string{"third: lost"})
	for _, want := range []string{
		"row: about", "container        2.00     1.00      1.00      1.00", "other        8.00     1.00      0.25      4.00",
		"without third: lost",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
}
