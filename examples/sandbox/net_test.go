//go:build linux

package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
)

// The host is a network of the test's own with two addresses, and a server at both.
const ownHost = `ip link set lo up; ip addr add 198.51.100.7/32 dev lo; ip addr add 198.51.100.8/32 dev lo; busybox httpd -p 80 -h "$0"; exec "$@"`

func TestNetworkModes(t *testing.T) {
	need(t)
	testenv.Need(t, testenv.Program("curl", "curl"), testenv.Program("ip", "iproute2"), testenv.Program("unshare", "util-linux"), testenv.StaticBusybox)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("from outside\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		net, host, out, errs string
		code                 int
	}{
		"allowed":  {"allow=198.51.100.7:80,example.com", "198.51.100.7", "from outside\n", "", 0},
		"port":     {"allow=198.51.100.7:81", "198.51.100.7", "", "denied", 7},
		"address":  {"allow=198.51.100.7", "198.51.100.8", "", "denied", 7},
		"loopback": {"all", "[::ffff:127.0.0.1]", "", "", 7},
		"all":      {"all", "198.51.100.8", "from outside\n", "", 0},
		"none":     {"none", "198.51.100.8", "", "", 7},
		"host":     {"host", "198.51.100.8", "from outside\n", "", 0},
		"wrong":    {"bridge", "198.51.100.8", "", "want none", 2},
		"bad rule": {"allow=1.2.3.4.5", "198.51.100.8", "", "EgressRule", 2},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := clitest.Command(t, "-net", row.net, "--", testenv.LookPath("curl"), "-s", "-m", "60", "http://"+row.host+"/file")
			flags := []string{"-n", "-m", "-p", "-f", "--kill-child", "--mount-proc"}
			if os.Geteuid() != 0 {
				flags = append(flags, "-U", "-r")
			}
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Args = append(append(append([]string{"unshare"}, flags...), "sh", "-c", ownHost, dir, self), cmd.Args[1:]...)
			cmd.Path = testenv.LookPath("unshare")
			out, errs, code := clitest.Output(t, cmd)
			if out != row.out || code != row.code || !strings.Contains(errs, row.errs) {
				t.Errorf("code %d, output %q, want %d, %q; errors: %s", code, out, row.code, row.out, errs)
			}
		})
	}
}

func TestPublishedPort(t *testing.T) {
	need(t)
	testenv.Need(t, testenv.StaticBusybox)
	cmd := clitest.Command(t, "-p", "127.0.0.1::80", "--", testenv.LookPath("busybox"), "httpd", "-f", "-p", "80", "-h", "/usr/share/doc/busybox-static")
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(errs).ReadString('\n')
	at := regexp.MustCompile(`published (127\.0\.0\.1:\d+):80\n`).FindStringSubmatch(line)
	if at == nil {
		t.Errorf("%q", line)
		at = []string{"", "127.0.0.1:1"}
	}
	var got *http.Response
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); { // until it listens
		if got, err = client.Get("http://" + at[1] + "/copyright"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Error(err)
	} else {
		text, err := io.ReadAll(got.Body)
		got.Body.Close()
		if err != nil || got.StatusCode != 200 || len(text) == 0 {
			t.Errorf("%s, %q, %v", got.Status, text, err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for deadline := time.Now().Add(time.Minute); ; { // the second kills what does not handle the first, but two at once are one
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
			return
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			<-ended
			t.Fatal("it does not end")
		}
	}
}
