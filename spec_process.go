package container

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file turns the process of an OCI specification into a Process.

// ProcessFromSpec turns a process of the OCI runtime specification, as exec has it, into a Process
// that overrides all that the container has for its processes. Complaints are as those of [FromSpec].
func ProcessFromSpec(process *specs.Process) (*Process, error) {
	var errs fieldErrors
	p := processFromSpec(process, &errs)
	if err := errs.join(); err != nil {
		return nil, err
	}
	return p, nil
}

// process takes the process apart: what holds for all processes of the container goes to the Config.
func (s *fromSpec) process() {
	if s.spec.Process == nil {
		s.cfg.Capabilities = &Capabilities{}
		return
	}
	p := processFromSpec(s.spec.Process, &s.errs)
	s.proc = &Process{
		Args: p.Args, Env: p.Env, Cwd: p.Cwd, User: p.User, AdditionalGroups: p.AdditionalGroups,
		Tty: p.Tty, ConsoleSize: p.ConsoleSize,
	}
	s.cfg.Capabilities, s.cfg.NoNewPrivileges, s.cfg.Rlimits = p.Capabilities, *p.NoNewPrivileges, p.Rlimits
	s.cfg.AppArmorProfile, s.cfg.SelinuxLabel = p.AppArmorProfile, p.SelinuxLabel
	s.cfg.Umask, s.cfg.OomScoreAdj = p.Umask, p.OomScoreAdj
	s.cfg.Scheduler, s.cfg.IOPriority = p.Scheduler, p.IOPriority
}

func processFromSpec(in *specs.Process, errs *fieldErrors) *Process {
	p := &Process{
		Args:            slices.Clone(in.Args),
		Env:             slices.Clone(in.Env),
		Cwd:             in.Cwd,
		User:            fmt.Sprintf("%d:%d", in.User.UID, in.User.GID),
		NoNewPrivileges: &in.NoNewPrivileges,
		Capabilities:    &Capabilities{},
		OomScoreAdj:     in.OOMScoreAdj,
		Umask:           in.User.Umask,
		AppArmorProfile: in.ApparmorProfile,
		SelinuxLabel:    in.SelinuxLabel,
	}
	*p = deepCopy(*p)
	if !strings.HasPrefix(in.Cwd, "/") {
		errs.addf("process.cwd", "%q is not an absolute path", in.Cwd)
	}
	for _, gid := range in.User.AdditionalGids {
		p.AdditionalGroups = append(p.AdditionalGroups, fmt.Sprint(gid))
	}
	for _, refused := range []struct {
		field, value, why string
	}{
		{"process.user.username", in.User.Username, "is for Windows; use uid and gid"},
		{"process.commandLine", in.CommandLine, "is for Windows; use args"},
	} {
		if refused.value != "" {
			errs.addf(refused.field, "%s", refused.why)
		}
	}
	if p.Tty = in.Terminal; in.Terminal && in.ConsoleSize != nil {
		size := *in.ConsoleSize
		if size.Width > math.MaxUint16 || size.Height > math.MaxUint16 || (size.Width == 0) != (size.Height == 0) {
			errs.addf("process.consoleSize", "%d by %d characters are no size of a terminal", size.Width, size.Height)
		}
		p.ConsoleSize = ConsoleSize{Width: uint16(size.Width), Height: uint16(size.Height)}
	}
	if c := in.Capabilities; c != nil {
		p.Capabilities = deepCopy(&Capabilities{
			Bounding: c.Bounding, Effective: c.Effective, Permitted: c.Permitted, Inheritable: c.Inheritable,
		})
		for _, name := range c.Ambient {
			if slices.Contains(c.Permitted, name) && slices.Contains(c.Inheritable, name) {
				p.Capabilities.Ambient = append(p.Capabilities.Ambient, name)
			}
		}
	}
	for _, r := range in.Rlimits {
		p.Rlimits = append(p.Rlimits, Rlimit{Type: r.Type, Soft: r.Soft, Hard: r.Hard})
	}
	p.Scheduler = schedulerFromSpec(in.Scheduler, errs)
	if io := in.IOPriority; io != nil {
		p.IOPriority = &IOPriority{Class: string(io.Class), Priority: io.Priority}
	}
	if in.ExecCPUAffinity != nil {
		for _, field := range asked("process.execCPUAffinity", in.ExecCPUAffinity) {
			errs.addf(field, "is not set yet; leave it out")
		}
	}
	return p
}

func schedulerFromSpec(in *specs.Scheduler, errs *fieldErrors) *Scheduler {
	if in == nil {
		return nil
	}
	s := &Scheduler{
		Policy: string(in.Policy), Nice: in.Nice, Priority: uint32(max(in.Priority, 0)),
		Runtime: in.Runtime, Deadline: in.Deadline, Period: in.Period,
	}
	if in.Priority < 0 {
		errs.addf("process.scheduler.priority", "%d is negative", in.Priority)
	}
	for i, flag := range in.Flags {
		if flag != specs.SchedFlagResetOnFork {
			errs.addf(index("process.scheduler.flags", i), "%q cannot be set; %s can", flag, specs.SchedFlagResetOnFork)
			continue
		}
		s.ResetOnFork = true
	}
	return s
}

// processToSpec is the other way round; p overrides c.
func (t *toSpec) process(p *Process) {
	if p == nil {
		return
	}
	out := &specs.Process{
		Args: slices.Clone(p.Args), Env: slices.Clone(p.Env), Cwd: p.Cwd, Terminal: p.Tty,
		User:            specs.User{Umask: deepCopy(override(p.Umask, t.cfg.Umask))},
		NoNewPrivileges: *override(p.NoNewPrivileges, &t.cfg.NoNewPrivileges),
		OOMScoreAdj:     deepCopy(override(p.OomScoreAdj, t.cfg.OomScoreAdj)),
	}
	labels := p.labels(t.cfg)
	out.ApparmorProfile, out.SelinuxLabel = labels.appArmor, labels.selinux
	if out.Cwd == "" {
		out.Cwd = "/"
	}
	if size := p.ConsoleSize; size != (ConsoleSize{}) {
		out.ConsoleSize = &specs.Box{Width: uint(size.Width), Height: uint(size.Height)}
	}
	if p.InheritEnv {
		t.errs.addf("InheritEnv", "the specification has no word for it; put the variables into Env")
	}
	if p.CPUAffinity != "" {
		t.errs.addf("CPUAffinity", "the specification has no word for it; leave it empty")
	}
	if p.Personality != nil {
		t.errs.addf("Personality", "is the container's in the specification; set Config.Personality")
	}
	t.user(p, &out.User)
	caps := override(p.Capabilities, t.cfg.Capabilities)
	if caps == nil {
		caps = DefaultCapabilitiesConfig()
	}
	c := deepCopy(*caps)
	out.Capabilities = &specs.LinuxCapabilities{
		Bounding: c.Bounding, Effective: c.Effective, Permitted: c.Permitted, Inheritable: c.Inheritable, Ambient: c.Ambient,
	}
	limits := t.cfg.Rlimits
	if len(p.Rlimits) > 0 {
		limits = p.Rlimits
	}
	for _, r := range limits {
		n, err := r.resource()
		if err != nil {
			t.errs.add(inField("Rlimits", err))
			continue
		}
		out.Rlimits = append(out.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(rlimitNames[n]), Hard: r.Hard, Soft: r.Soft})
	}
	if s := override(p.Scheduler, t.cfg.Scheduler); s != nil {
		out.Scheduler = t.scheduler(s)
	}
	if io := override(p.IOPriority, t.cfg.IOPriority); io != nil {
		name := strings.TrimPrefix(strings.ToUpper(io.Class), "IOPRIO_CLASS_")
		out.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPriorityClass("IOPRIO_CLASS_" + name), Priority: io.Priority}
	}
	t.spec.Process = out
}

func (t *toSpec) scheduler(s *Scheduler) *specs.Scheduler {
	if s.Priority > math.MaxInt32 {
		t.errs.addf("Scheduler.Priority", "%d is out of range", s.Priority)
	}
	name := strings.TrimPrefix(strings.ToUpper(s.Policy), "SCHED_")
	out := &specs.Scheduler{
		Policy: specs.LinuxSchedulerPolicy("SCHED_" + name), Nice: s.Nice, Priority: int32(s.Priority),
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
	if s.ResetOnFork {
		out.Flags = []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}
	}
	return out
}

// user: the specification knows numbers only.
func (t *toSpec) user(p *Process, out *specs.User) {
	user := p.User
	if user == "" {
		user = "0:0"
	}
	name, group, _ := strings.Cut(user, ":")
	uid, err1 := parseID(name)
	gid, err2 := parseID(group)
	if err1 != nil || err2 != nil || name == "" || group == "" {
		t.errs.addf("User", "the specification needs numbers, \"uid:gid\", and not %q", p.User)
	}
	out.UID, out.GID = uid, gid
	for i, g := range p.AdditionalGroups {
		gid, err := parseID(g)
		if err != nil || g == "" {
			t.errs.addf(index("AdditionalGroups", i), "the specification needs a number, and not %q", g)
		}
		out.AdditionalGids = append(out.AdditionalGids, gid)
	}
}
