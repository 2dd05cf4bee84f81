package container

import (
	"fmt"
	"strings"
)

// This file checks a Process, and what it has in common with a Config.

// processChecks are all checks of a Process, in the order of its fields.
var processChecks = []func(*Process) []error{
	checkArgs,
	checkEnv,
	checkCwd,
	checkWaitDelay,
	checkConsole,
	checkProcessCgroup,
	checkProcessLabels,
	checkSettings,
}

// validate returns all complaints about a Process, joined, or nil. Each is a FieldError. User and
// AdditionalGroups are checked by resolveUser, against the container's own files.
func (p *Process) validate() error {
	var errs fieldErrors
	for _, check := range processChecks {
		errs = append(errs, check(p)...)
	}
	return errs.join()
}

// settings returns what a Config has in common with a Process, as a Process.
func (c *Config) settings() *Process {
	return &Process{
		Capabilities: c.Capabilities,
		Rlimits:      c.Rlimits,
		Umask:        c.Umask,
		OomScoreAdj:  c.OomScoreAdj,
		Personality:  c.Personality,
		Scheduler:    c.Scheduler,
		IOPriority:   c.IOPriority,
		CPUAffinity:  c.CPUAffinity,
	}
}

func checkArgs(p *Process) []error {
	var errs fieldErrors
	if len(p.Args) == 0 || p.Args[0] == "" {
		errs.addf("Args", "is empty; Args[0] names the program to run")
	}
	for i, arg := range p.Args {
		if strings.ContainsRune(arg, 0) {
			errs.addf(index("Args", i), "%.100q contains a NUL byte", arg)
		}
	}
	return errs
}

// checkEnv does not quote values in its complaints: they may be secret.
func checkEnv(p *Process) []error {
	var errs fieldErrors
	for i, entry := range p.Env {
		key, _, ok := strings.Cut(entry, "=")
		switch {
		case strings.ContainsRune(entry, 0):
			errs.addf(index("Env", i), "contains a NUL byte")
		case !ok || key == "":
			errs.addf(index("Env", i), "is not of the form \"KEY=value\"")
		}
	}
	return errs
}

func checkCwd(p *Process) []error {
	var errs fieldErrors
	switch {
	case p.Cwd == "":
	case strings.ContainsRune(p.Cwd, 0):
		errs.addf("Cwd", "%q contains a NUL byte", p.Cwd)
	case !strings.HasPrefix(p.Cwd, "/"):
		errs.addf("Cwd", "%q is not an absolute path", p.Cwd)
	}
	return errs
}

func checkWaitDelay(p *Process) []error {
	var errs fieldErrors
	if p.WaitDelay < 0 {
		errs.addf("WaitDelay", "%v is negative; 0 means no bound", p.WaitDelay)
	}
	return errs
}

// checkSettings checks what a Config and a Process have in common.
func checkSettings(p *Process) []error {
	var errs fieldErrors
	if p.Capabilities != nil {
		_, err := p.Capabilities.sets()
		errs.add(err)
	}
	errs = append(errs, checkRlimits(p.Rlimits)...)
	if p.Umask != nil && *p.Umask > 0o777 {
		errs.addf("Umask", "%#o is more than 0777", *p.Umask)
	}
	if p.OomScoreAdj != nil && (*p.OomScoreAdj < -1000 || *p.OomScoreAdj > 1000) {
		errs.addf("OomScoreAdj", "%d is not between -1000 and 1000", *p.OomScoreAdj)
	}
	if p.Personality != nil {
		_, err := p.Personality.value()
		errs.add(err)
	}
	if p.Scheduler != nil {
		_, err := p.Scheduler.attr()
		errs.add(err)
	}
	if p.IOPriority != nil {
		_, err := p.IOPriority.value()
		errs.add(err)
	}
	if p.CPUAffinity != "" {
		_, err := parseCPUList(p.CPUAffinity)
		errs.add(err)
	}
	return errs
}

func checkRlimits(limits []Rlimit) []error {
	var errs fieldErrors
	seen := make(map[int]int)
	for i, r := range limits {
		field := index("Rlimits", i)
		n, err := r.resource()
		if err != nil {
			errs.add(inField(field, err))
			continue
		}
		if first, ok := seen[n]; ok {
			errs.addf(field+".Type", "%q is that of %s already", r.Type, index("Rlimits", first))
		}
		seen[n] = i
		if r.Soft > r.Hard {
			errs.addf(field+".Soft", "%s is more than Hard, %s", limitText(r.Soft), limitText(r.Hard))
		}
	}
	return errs
}

func limitText(n uint64) string {
	if n == RlimInfinity {
		return "no limit"
	}
	return fmt.Sprint(n)
}
