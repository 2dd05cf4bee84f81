//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"example.com/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file tells about containers: state, list, ps.

// A report is what runc's state and list print.
type report struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func (a *app) report(c *container.Container) (*report, error) {
	s, err := c.State()
	if err != nil {
		return nil, err
	}
	return &report{
		Version: specs.Version, ID: s.ID, Pid: s.Pid, Status: string(s.Status), Bundle: s.Bundle,
		Rootfs: c.Config().Root.Dir, Created: s.Created.UTC(), Annotations: maps.Clone(s.Annotations),
		Owner: owner(filepath.Join(a.root, s.ID)),
	}, nil
}

func stateCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	return func(args []string) (int, error) {
		c, err := container.Load(a.root, args[0])
		if err != nil {
			return 1, err
		}
		r, err := a.report(c)
		if err != nil {
			return 1, err
		}
		return printJSON(r, "  ")
	}
}

// printJSON prints a value as the commands do.
func printJSON(v any, indent string) (int, error) {
	text, err := json.MarshalIndent(v, "", indent)
	if err != nil {
		return 1, err
	}
	fmt.Println(string(text))
	return 0, nil
}

func listCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	var format string
	var quiet bool
	f.StringVar(&format, "format", "table", "`format`: table or json")
	f.StringVar(&format, "f", "table", "`format`: table or json")
	f.BoolVar(&quiet, "quiet", false, "print ids only")
	f.BoolVar(&quiet, "q", false, "print ids only")
	return func([]string) (int, error) {
		list, err := container.List(a.root)
		if err != nil {
			return 1, err
		}
		var reports []*report
		for _, c := range list {
			r, err := a.report(c)
			if errors.Is(err, container.ErrNotExist) {
				continue
			}
			if err != nil {
				a.logger.Warn(err.Error())
				continue
			}
			reports = append(reports, r)
		}
		switch {
		case quiet:
			for _, r := range reports {
				fmt.Println(r.ID)
			}
		case format == "table":
			table := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
			fmt.Fprint(table, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
			for _, r := range reports {
				fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\n", r.ID, r.Pid, r.Status, r.Bundle, r.Created.Format(time.RFC3339Nano), r.Owner)
			}
			return 0, table.Flush()
		case format == "json":
			text, err := json.Marshal(reports)
			if err != nil {
				return 1, err
			}
			fmt.Print(string(text))
		default:
			return 1, errors.New("invalid format option")
		}
		return 0, nil
	}
}

func psCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	var format string
	f.StringVar(&format, "format", "table", "`format`: table or json")
	f.StringVar(&format, "f", "table", "`format`: table or json")
	return func(args []string) (int, error) {
		c, err := container.Load(a.root, args[0])
		if err != nil {
			return 1, err
		}
		pids, err := c.Processes()
		if err != nil && !errors.Is(err, container.ErrNotRunning) {
			return 1, err
		}
		switch format {
		case "json":
			if pids == nil {
				pids = []int{}
			}
			text, err := json.Marshal(pids)
			if err != nil {
				return 1, err
			}
			fmt.Println(string(text))
			return 0, nil
		case "table":
		default:
			return 1, errors.New("invalid format option")
		}
		options := args[1:]
		if len(options) > 0 && options[0] == "--" {
			options = options[1:]
		}
		if len(options) == 0 {
			options = []string{"-ef"}
		}
		out, err := exec.Command("ps", options...).CombinedOutput()
		if err != nil {
			return 1, fmt.Errorf("%w: %s", err, out)
		}
		return printTable(string(out), pids)
	}
}

// printTable prints the title of ps's output, and the lines about some processes.
func printTable(out string, pids []int) (int, error) {
	lines := strings.SplitAfter(out, "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return 1, errors.New("couldn't find PID field in ps output")
	}
	fmt.Print(lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Print(line)
		}
	}
	return 0, nil
}

// owner names the owner of a file.
func owner(path string) string {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return ""
	}
	id := strconv.FormatUint(uint64(st.Uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "#" + id
}
