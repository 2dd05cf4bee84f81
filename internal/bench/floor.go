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

func floor(dir, rootfs string, userns bool) (contender, error) {
	gcc := testenv.LookPath("gcc")
	if gcc == "" {
		return contender{}, errors.New("needs gcc")
	}
	source, binary := filepath.Join(dir, "floor.c"), filepath.Join(dir, "floor")
	if err := os.WriteFile(source, floorSource, 0o644); err != nil {
		return contender{}, err
	}
	if out, err := exec.Command(gcc, "-O2", "-static", "-o", binary, source).CombinedOutput(); err != nil {
		return contender{}, fmt.Errorf("%w: %s", err, out)
	}

	cmd := exec.Command(binary, rootfs, program)
	if userns {
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
	once := func() (time.Duration, error) {
		if _, err := fmt.Fprintln(stdin); err != nil {
			return 0, err
		}
		answer, err := answers.ReadString('\n')
		if err != nil {
			return 0, err
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(answer), 10, 64)
		return time.Duration(ns), err
	}
	return contender{once: once, close: func() error {
		stdin.Close()
		return cmd.Wait()
	}}, nil
}
