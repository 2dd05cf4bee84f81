//go:build linux

package main

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"example.com/container/internal/testenv"
)

// This file compiles the floor, the C program with only the system calls, and keeps it running: it
// times itself, so that neither its own start nor the pipe to it count.

//go:embed testdata/floor.c
var floorSource []byte

// floor compiles and starts one; the field ends it.
func (s start) floor(f *field, code []byte, args ...string) (contender, error) {
	gcc := testenv.LookPath("gcc")
	if gcc == "" {
		return contender{}, errors.New("needs gcc")
	}
	dir, err := os.MkdirTemp(s.dir, "floor") // one that runs cannot be written over
	if err != nil {
		return contender{}, err
	}
	source, binary := filepath.Join(dir, "floor.c"), filepath.Join(dir, "floor")
	if err := os.WriteFile(source, code, 0o644); err != nil {
		return contender{}, err
	}
	if out, err := exec.Command(gcc, "-O2", "-static", "-o", binary, source).CombinedOutput(); err != nil {
		return contender{}, fmt.Errorf("%w: %s", err, out)
	}

	cmd := exec.Command(binary, args...)
	if s.userns {
		cmd.Args = append(cmd.Args, "userns")
	}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return contender{}, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return contender{}, err
	}
	if err := cmd.Start(); err != nil {
		return contender{}, err
	}
	answers := bufio.NewReader(stdout)
	f.end = append(f.end, func() {
		stdin.Close()
		cmd.Wait()
	})
	return contender{once: func() (sample, error) {
		if _, err := fmt.Fprintln(stdin); err != nil {
			return sample{}, err
		}
		answer, err := answers.ReadString('\n')
		if err != nil {
			return sample{}, err
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(answer), 10, 64)
		return sample{wall: time.Duration(ns)}, err
	}}, nil
}
