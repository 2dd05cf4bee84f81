// Package container runs processes in Linux containers from any Go program: no
// daemon, no root, no cgo, no helper binary, and no call in the caller's main.
//
//	cfg := container.DefaultConfig()       // safe: all namespaces, few capabilities, no new privileges
//	cfg.Root = container.HostRoot          // the host's own files; changes are thrown away
//	c, err := container.New(stateDir, "demo", cfg)
//	...
//	defer c.Destroy()
//	p := &container.Process{Args: []string{"sh", "-c", "id"}, Stdout: os.Stdout}
//	if err := c.Run(ctx, p); err != nil {
//		...
//	}
//	err = c.Wait() // nil, or an *ExitError with the code or the signal
//
// It is os/exec for a disposable machine: [Config] says what the machine looks
// like, [Process] says what runs in it and is the handle to it afterwards, and
// [Container] is the live thing with its record on disk.
//
// # How a container starts
//
// Everything that can be decided is decided in the caller's process. The result
// is a flat list of system calls, which a launcher of a few hundred bytes carries
// out in the new process, and which ends in the execve of the user's program.
// The caller's binary is never executed again and never visible in the
// container. [Explain] prints the list without running it.
//
// # What the host must offer
//
// Linux 5.14 or newer on amd64 or arm64. An ordinary user needs user
// namespaces, and for images with several owners a range of subordinate ids in
// /etc/subuid and /etc/subgid. [Check] tells what this host and this user can
// do, each line with the remedy. On other systems the package compiles, and
// everything returns an error that wraps [errors.ErrUnsupported].
//
// # Errors
//
// What was asked for and cannot be had is an error, never a warning and never
// less isolation than was asked for. Errors of operations are of type [*Error]
// and wrap the error number of the system call that failed, also where that
// call was made in the container's process: errors.Is(err, unix.EPERM) works.
package container
