// Seccomp finds out what a program would need that the default profile denies, and runs it with a profile.
//
//	go run ./examples/seccomp audit -o profile.json -- unshare -r true
//	go run ./examples/seccomp run -profile profile.json -- unshare -r true
//
// The command sees this machine's own files, read-only, and has no network. Audit lets it do what the
// profile denies, so it is for programs that are trusted.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	"example.com/container"
	"example.com/container/examples/internal/cli"
)

func main() { os.Exit(run()) }

func usage() int {
	fmt.Fprintln(os.Stderr, "usage: seccomp audit [-profile FILE] [-o FILE] [--] COMMAND...\n       seccomp run [-profile FILE] [--] COMMAND...")
	return 2
}

func run() int {
	if len(os.Args) < 2 || os.Args[1] != "audit" && os.Args[1] != "run" {
		return usage()
	}
	audit := os.Args[1] == "audit"
	flags := flag.NewFlagSet("seccomp", flag.ContinueOnError)
	file := flags.String("profile", "", "read the profile from this `FILE` (default: the package's)")
	output := flags.String("o", "", "with audit: write the profile with what was missing to this `FILE`")
	if flags.Parse(os.Args[2:]) != nil || flags.NArg() == 0 || *output != "" && !audit {
		return usage()
	}
	profile, err := readProfile(*file)
	if err != nil {
		return cli.Fail("seccomp", err)
	}
	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot
	cfg.Root.Access = container.ReadOnly
	cfg.DieWithParent = true
	cfg.Seccomp = profile
	var recorder *container.SeccompRecorder
	if audit {
		cfg.Seccomp, recorder = profile.Audit()
		cfg.SeccompNotify = recorder.Handle
	}
	code := cli.Run("seccomp", cfg, &container.Process{Args: flags.Args(), Env: []string{"PATH=" + os.Getenv("PATH")}})
	if !audit {
		return code
	}
	for _, c := range recorder.Calls() {
		fmt.Fprintf(os.Stderr, "denied: %s, %d times by %s\n", c, c.Count, strings.Join(c.Programs, ", "))
	}
	if *output != "" {
		text, err := json.MarshalIndent(recorder.Profile(), "", "\t")
		if err == nil {
			err = os.WriteFile(*output, append(text, '\n'), 0o644)
		}
		if err != nil {
			return cli.Fail("seccomp", err)
		}
	}
	return code
}

// readProfile reads a profile of the OCI runtime specification, or Docker's.
func readProfile(file string) (*container.SeccompProfile, error) {
	if file == "" {
		return container.DefaultSeccompProfile(), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	profile := new(container.SeccompProfile)
	return profile, json.Unmarshal(text, profile)
}
