//go:build linux

package container

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// This file asks SELinux's policy about contexts, by the files of selinuxfs. It runs in the caller's process, before anything starts.

const selinuxDir = "/sys/fs/selinux"

func selinuxEnabled() bool {
	var st unix.Statfs_t
	if err := unix.Statfs(selinuxDir, &st); err != nil || uint32(st.Type) != unix.SELINUX_MAGIC {
		return false
	}
	_, err := os.Stat(selinuxDir + "/enforce")
	return err == nil
}

// resolveContexts sees that the policy knows the contexts that are asked for. That of the process becomes what the kernel will write
// of it: "s0:c1.c3" for "s0:c3,c1,c2".
func (pl *plan) resolveContexts() []error {
	var errs fieldErrors
	for _, x := range []struct {
		field string
		label *string
	}{{"SelinuxLabel", &pl.labels.selinux}, {"MountLabel", new(pl.cfg.MountLabel)}} {
		if *x.label == "" {
			continue
		}
		if !selinuxEnabled() {
			errs.add(&FieldError{Field: x.field, Err: ErrUnsupported, Problem: "the kernel has no SELinux, or it is off: there is no selinuxfs at " +
				selinuxDir + "; boot with selinux=1 security=selinux, or leave the field empty"})
			break
		}
		known, err := policyContext(*x.label)
		switch {
		case err == nil && strings.Count(known, ":") < 2: // "kernel": to that everything is mapped
			errs.add(&FieldError{Field: x.field, Err: ErrUnsupported, Problem: "SELinux has no policy: load one, with load_policy -i, or leave the field empty"})
		case err == nil:
			*x.label = known
		case errors.Is(err, unix.EINVAL):
			errs.addf(x.field, "the policy that is loaded knows no context %q: see its users, roles and types with seinfo, and ls -Z for contexts that there are", *x.label)
		}
		// Whoever may not ask is told by the kernel when the label is set.
	}
	return errs
}

// policyContext is a context as the policy writes it. EINVAL: there is none.
func policyContext(label string) (string, error) {
	f, err := os.OpenFile(selinuxDir+"/context", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := f.WriteString(label); err != nil { // a transaction: what is read next is the answer
		return "", err
	}
	answer := make([]byte, os.Getpagesize())
	n, err := f.Read(answer)
	return strings.TrimRight(string(answer[:n]), "\n\x00"), err
}
