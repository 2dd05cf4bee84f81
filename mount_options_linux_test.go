package container

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The numbers agree with the kernel's headers, as golang.org/x/sys has them.
func TestMountNumbers(t *testing.T) {
	for flag, want := range map[MountFlags]uint64{
		MountReadOnly: unix.MOUNT_ATTR_RDONLY, NoSuid: unix.MOUNT_ATTR_NOSUID, NoDev: unix.MOUNT_ATTR_NODEV,
		NoExec: unix.MOUNT_ATTR_NOEXEC, NoAtime: unix.MOUNT_ATTR_NOATIME, RelAtime: unix.MOUNT_ATTR_RELATIME,
		StrictAtime: unix.MOUNT_ATTR_STRICTATIME, NoDirAtime: unix.MOUNT_ATTR_NODIRATIME, NoSymFollow: unix.MOUNT_ATTR_NOSYMFOLLOW,
		Recursive: 0,
	} {
		if flag.attr() != want {
			t.Errorf("%v: %#x, the header says %#x", flag, flag.attr(), want)
		}
	}
	if attrAtime != unix.MOUNT_ATTR__ATIME {
		t.Errorf("MOUNT_ATTR__ATIME is %#x", unix.MOUNT_ATTR__ATIME)
	}
	for p, want := range map[Propagation]uint64{
		Private: unix.MS_PRIVATE, Slave: unix.MS_SLAVE, Shared: unix.MS_SHARED, Unbindable: unix.MS_UNBINDABLE,
	} {
		if ms, _, _ := p.flags(); ms != want {
			t.Errorf("%s: %#x, the header says %#x", p, ms, want)
		}
	}
}
