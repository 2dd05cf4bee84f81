package container_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"example.com/container"
)

// The examples that start containers have no comment with their output, since a host may not allow
// them: TestExamples runs them where it does.

// must ends an example; a program would handle the error.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// sandbox makes a container on the host's own files, with its record in a temporary directory.
func sandbox(id string) (c *container.Container, remove func()) {
	dir := must(os.MkdirTemp("", "example-"))
	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot
	c = must(container.New(dir, id, cfg))
	return c, func() { c.Destroy(); os.RemoveAll(dir) }
}

func ExampleContainer() {
	stateDir := must(os.MkdirTemp("", "example-")) // better below /run, or $XDG_RUNTIME_DIR
	defer os.RemoveAll(stateDir)

	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot // the host's own files; changes are thrown away
	c, err := container.New(stateDir, "demo", cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Destroy()
	p := &container.Process{Args: []string{"sh", "-c", "id -u; hostname"}, Stdout: os.Stdout}
	if err := c.Run(context.Background(), p); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Wait())
	// 0
	// container
	// <nil>
}

func ExampleContainer_Run_notFound() {
	c, remove := sandbox("demo")
	defer remove()
	err := c.Run(context.Background(), &container.Process{Args: []string{"no-such-program"}})
	fmt.Println(errors.Is(err, container.ErrNotFound))
	fmt.Println(c.Status())
	// true
	// creating <nil>
}

func ExampleContainer_Stop() {
	c, remove := sandbox("demo")
	defer remove()
	p := &container.Process{Args: []string{"sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done"}}
	out := must(p.StdoutPipe())
	must(0, c.Run(context.Background(), p))
	fmt.Fscanln(out, new(string)) // ready
	must(0, c.Stop(context.Background()))
	io.Copy(os.Stdout, out)
	fmt.Println(c.Wait())
	// bye
	// <nil>
}

func ExampleContainer_Signal() {
	c, remove := sandbox("demo")
	defer remove()
	must(0, c.Run(context.Background(), &container.Process{Args: []string{"sleep", "1000"}}))
	must(0, c.Signal(syscall.SIGKILL))
	fmt.Println(c.Wait())
	fmt.Println(errors.Is(c.Signal(syscall.SIGKILL), container.ErrNotRunning))
	// signal: killed
	// true
}

func ExampleProcess_Attach() {
	c, remove := sandbox("demo")
	defer remove()
	p := &container.Process{
		Args: []string{"sh", "-c", "read name; stty size; echo hello, $name"},
		Tty:  true, ConsoleSize: container.ConsoleSize{Width: 100, Height: 40},
	}
	must(0, c.Run(context.Background(), p))
	must(0, p.Resize(container.ConsoleSize{Width: 80, Height: 24}))
	// What it has shown so far is lost. What is typed now the terminal shows, too.
	fmt.Println(p.Attach(context.Background(), strings.NewReader("terminal\n"), os.Stdout))
	fmt.Println(p.Wait())
	// terminal
	// 24 80
	// hello, terminal
	// <nil>
	// <nil>
}

func ExampleForwardSignals() {
	c, remove := sandbox("demo")
	defer remove()
	p := &container.Process{Args: []string{"sh", "-c", "trap 'echo got it; exit' USR1; echo ready; while :; do sleep 0.01; done"}}
	out := must(p.StdoutPipe())
	must(0, c.Run(context.Background(), p))
	stop := must(container.ForwardSignals(c))
	defer stop()
	io.ReadFull(out, make([]byte, len("ready\n")))
	syscall.Kill(os.Getpid(), syscall.SIGUSR1) // as kill(1) does
	io.Copy(os.Stdout, out)
	fmt.Println(c.Wait())
	// got it
	// <nil>
}

func ExampleContainerState() {
	c, remove := sandbox("demo")
	defer remove()
	must(0, c.Run(context.Background(), &container.Process{Args: []string{"sh", "-c", "exit 3"}}))
	c.Wait()
	state := must(c.State())
	fmt.Println(state.ID, state.Status, state.ExitCode)
	// demo stopped 3
}

func ExampleLoad() {
	dir := must(os.MkdirTemp("", "example-"))
	defer os.RemoveAll(dir)
	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot
	must(container.New(dir, "demo", cfg))

	// Later, maybe in another process:
	c := must(container.Load(dir, "demo"))
	fmt.Println(c.ID(), c.Config().Hostname)
	fmt.Println(c.Destroy())
	_, err := container.Load(dir, "demo")
	fmt.Println(errors.Is(err, container.ErrNotExist))
	// demo container
	// <nil>
	// true
}

func ExampleExitError() {
	c, remove := sandbox("demo")
	defer remove()
	must(0, c.Run(context.Background(), &container.Process{Args: []string{"sh", "-c", "exit 3"}}))
	err := c.Wait()
	if exit, ok := errors.AsType[*container.ExitError](err); ok {
		fmt.Println(exit.Code, exit)
	}
	// 3 exit status 3
}

func ExampleProcess() {
	c, remove := sandbox("demo")
	defer remove()
	var out strings.Builder
	p := &container.Process{
		Args:   []string{"tr", "a-z", "A-Z"},
		Stdin:  strings.NewReader("hello"),
		Stdout: &out,
	}
	must(0, c.Run(context.Background(), p))
	fmt.Println(p.Wait(), out.String())
	// <nil> HELLO
}

func ExampleProcess_StdinPipe() {
	c, remove := sandbox("demo")
	defer remove()
	p := &container.Process{Args: []string{"cat"}, Stdout: os.Stdout}
	in := must(p.StdinPipe())
	must(0, c.Run(context.Background(), p))
	fmt.Fprintln(in, "hello")
	in.Close()
	fmt.Println(p.Wait())
	// hello
	// <nil>
}

func ExampleProcess_StdoutPipe() {
	c, remove := sandbox("demo")
	defer remove()
	p := &container.Process{Args: []string{"echo", "hello"}}
	out := must(p.StdoutPipe())
	must(0, c.Run(context.Background(), p))
	fmt.Printf("%s", must(io.ReadAll(out)))
	fmt.Println(p.Wait())
	// hello
	// <nil>
}

func ExampleMount() {
	dir := must(os.MkdirTemp("", "example-"))
	defer os.RemoveAll(dir)
	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot
	cfg.Mounts = append(cfg.Mounts,
		container.Mount{Type: "bind", Source: "/etc", Target: "/mnt/etc", Flags: container.MountReadOnly | container.Recursive},
		container.Mount{Type: "tmpfs", Target: "/tmp", Flags: container.NoSuid | container.NoDev, Data: "size=64m,mode=1777"},
	)
	c := must(container.New(dir, "demo", cfg))
	defer c.Destroy()
	p := &container.Process{Args: []string{"sh", "-c", "touch /tmp/x && ls /tmp; ls /mnt/etc/passwd"}, Stdout: os.Stdout}
	must(0, c.Run(context.Background(), p))
	fmt.Println(c.Wait())
	// x
	// /mnt/etc/passwd
	// <nil>
}

// All complaints about a configuration come at once.
func ExampleFieldError() {
	cfg := container.DefaultConfig()
	cfg.Root = container.Directory("relative")
	cfg.Namespaces.NewUTS = false
	_, err := container.New("/nonexistent", "demo", cfg)
	fmt.Println(errors.Is(err, container.ErrInvalidConfig), strings.Count(err.Error(), "\n")+1)
	if field, ok := errors.AsType[*container.FieldError](err); ok {
		fmt.Println(field.Field)
	}
}

func ExampleError() {
	err := error(&container.Error{Op: "mount", ID: "demo", Path: "/data", Err: syscall.EPERM, Remedy: "set Recursive"})
	fmt.Println(err)
	fmt.Println(errors.Is(err, syscall.EPERM))
	if e, ok := errors.AsType[*container.Error](err); ok {
		fmt.Println(e.Op, e.Path)
	}
	// Output:
	// container demo: mount /data: operation not permitted (set Recursive)
	// true
	// mount /data
}

func ExampleConfig() {
	cfg := container.DefaultConfig()
	cfg.Root = container.Root{Dir: "/srv/root", Access: container.ReadOnly}
	cfg.Hostname = "worker"
	cfg.Rlimits = []container.Rlimit{{Type: "nofile", Soft: 1024, Hard: 4096}}
	cfg.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
	cfg.DieWithParent = true
	cfg.StopTimeout = 3 * time.Second
	fmt.Println(cfg.Namespaces.NewUser, cfg.NoNewPrivileges)
	// Output: true true
}

// The id maps of a container whose files belong to several users, started by an ordinary one.
func ExampleSubordinateIDs() {
	cfg := container.DefaultConfig()
	var err error
	cfg.UidMappings, cfg.GidMappings, err = container.SubordinateIDs()
	if errors.Is(err, container.ErrUnsupported) {
		fmt.Println(err) // and how to get some
	}
}

func ExampleKeepID() {
	cfg := container.DefaultConfig()
	cfg.UidMappings, cfg.GidMappings = container.KeepID()
	fmt.Println(cfg.UidMappings[0].ContainerID == os.Geteuid())
}

func ExampleNamespaces_CloneFlags() {
	ns := container.Namespaces{NewPID: true, NewNet: true}
	fmt.Printf("%#x\n", ns.CloneFlags())
	// Output: 0x60000000
}

// What a start would do, without doing it.
func ExampleExplain() {
	cfg := container.DefaultConfig()
	cfg.Root = container.HostRoot
	text, err := container.Explain(cfg, &container.Process{Args: []string{"id"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.Contains(text, "pivot_root"))
	// true
}

func ExampleImage_Process() {
	img := &container.Image{Config: container.ImageConfig{
		Entrypoint: []string{"/bin/server"}, Cmd: []string{"-help"}, WorkingDir: "/srv", User: "www-data",
	}}
	p := img.Process("-port", "80") // the user's arguments replace Cmd
	fmt.Println(p.Args, p.Cwd, p.User)
	fmt.Println(img.Process().Args)
	// Output:
	// [/bin/server -port 80] /srv www-data
	// [/bin/server -help]
}
