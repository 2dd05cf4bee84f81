//go:build linux

package guest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file boots a guest. Its disks are the image, which it cannot change, a tar with what goes in
// and a file for the tar that comes out; its first serial line is the kernel's console, a file, and
// its second one is the output of the command.

// outSize limits what comes out of a guest. The file is sparse.
const outSize = 1 << 30

// Run boots the guest, runs the command and returns its exit status. An error means that there is
// none: the guest did not start, its kernel panicked, or the context was done. It has the end of
// the guest's console, and wraps the context's cause.
func (g Guest) Run(ctx context.Context) (status int, err error) {
	g, err = g.complete()
	if err != nil {
		return 0, err
	}
	image, err := Build(ctx, g.Output)
	if err != nil {
		return 0, err
	}
	work, err := os.MkdirTemp("", "guest")
	if err != nil {
		return 0, fmt.Errorf("guest: %w", err)
	}
	defer os.RemoveAll(work)
	if err := g.writeIn(filepath.Join(work, "in.tar")); err != nil {
		return 0, fmt.Errorf("guest: what goes in: %w", err)
	}
	out, err := os.Create(filepath.Join(work, "out.tar"))
	if err != nil {
		return 0, fmt.Errorf("guest: %w", err)
	}
	defer out.Close()
	if err := out.Truncate(outSize); err != nil {
		return 0, fmt.Errorf("guest: %w", err)
	}
	console := filepath.Join(work, "console")
	err = qemu(ctx, g.Output, append(g.machine(accelerator(ctx, image), console, image), disks(image, work)...)...)
	if err == nil {
		if status, err = g.readOut(out); err == nil {
			return status, nil
		}
	}
	return 0, fmt.Errorf("guest: Linux %s: %w; the end of its console:\n%s", g.Kernel,
		errors.Join(context.Cause(ctx), err), tail(console, 100))
}

// machine returns the options of qemu for all but the disks.
func (g Guest) machine(accel, console, image string) []string {
	// mitigations=off: nobody attacks this kernel. panic=-1: it restarts at once, which ends qemu.
	line := "console=ttyS0 quiet panic=-1 mitigations=off " + g.Append
	if g.SELinux {
		line += " security=selinux selinux=1"
	}
	if g.Systemd {
		line += " systemd.run=/vm/run.sh"
	} else {
		line += " guest_init=/vm/run.sh"
	}
	return append(accelOptions(accel),
		"-smp", "2", "-M", "q35", "-m", strconv.Itoa(g.Memory),
		"-nodefaults", "-display", "none", "-no-reboot",
		"-serial", "file:"+console, "-serial", "stdio",
		"-kernel", filepath.Join(image, "vmlinuz-"+g.Kernel),
		"-initrd", filepath.Join(image, "initrd-"+g.Kernel),
		"-append", line)
}

func disks(image, work string) []string {
	var options []string
	for _, d := range []struct{ id, file, option string }{
		{"root", filepath.Join(image, "root.img"), "snapshot=on"},
		{"in", filepath.Join(work, "in.tar"), "readonly=on"},
		{"out", filepath.Join(work, "out.tar"), "cache=unsafe"},
	} {
		file := strings.ReplaceAll(d.file, ",", ",,") // a comma separates options
		options = append(options,
			"-drive", fmt.Sprintf("if=none,id=%s,format=raw,file=%s,%s", d.id, file, d.option),
			"-device", "virtio-blk-pci,drive="+d.id)
	}
	return options
}

// qemu runs it until it ends or the context is done.
func qemu(ctx context.Context, output io.Writer, options ...string) error {
	cmd := command(exec.CommandContext(ctx, "qemu-system-x86_64", options...))
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = output, &stderr
	cmd.WaitDelay = 5 * time.Second
	// It ends with this process, however that ends. What the kernel watches is the thread that
	// starts it, so this goroutine keeps its thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("qemu: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// writeIn writes the tar that goes in: the files, this package's scripts and the command.
func (g Guest) writeIn(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if g.Files != "" {
		if err := w.AddFS(os.DirFS(g.Files)); err != nil {
			return err
		}
	}
	for _, s := range []struct {
		name    string
		content []byte
	}{
		{"run.sh", script("run.sh")}, {"as", script("as.sh")}, {"command", []byte(g.Command + "\n")},
	} {
		if err := w.WriteHeader(&tar.Header{Name: s.name, Mode: 0o755, Size: int64(len(s.content))}); err != nil {
			return err
		}
		if _, err := w.Write(s.content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}

// readOut reads the tar that has come out: the status, and files for g.Out.
func (g Guest) readOut(from io.Reader) (status int, err error) {
	status = -1
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		switch {
		case err != nil && status < 0:
			return 0, errors.New("no exit status has come out of the guest")
		case err == io.EOF:
			return status, nil
		case err != nil:
			return 0, fmt.Errorf("what has come out: %w", err)
		case h.Name == "status":
			text, err := io.ReadAll(io.LimitReader(r, 16))
			if err != nil {
				return 0, err
			}
			if status, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
				return 0, err
			}
		case g.Out != "":
			if err := extract(g.Out, h, r); err != nil {
				return 0, err
			}
		}
	}
}

// extract writes a file of out/ into a directory, and never beside it.
func extract(dir string, h *tar.Header, content io.Reader) error {
	name, found := strings.CutPrefix(filepath.Clean(h.Name), "out/")
	if !found {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, os.FileMode(h.Mode)&0o777|0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := io.Copy(f, content); err != nil {
			return err
		}
		return f.Close()
	}
	return nil
}

// tail returns the last lines of a file.
func tail(path string, lines int) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.SplitAfter(strings.TrimRight(string(content), "\r\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}
