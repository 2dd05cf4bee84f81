//go:build linux

package container

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/testenv"
)

// This file compares the way out with those of programs that are made for it: pasta and slirp4netns. The same program sends and
// takes the same bytes from the same server, in turns.

func TestEgressThroughput(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv("CONTAINER_BENCH_ROUNDS"))
	if rounds == 0 {
		t.Skip("set CONTAINER_BENCH_ROUNDS to compare with pasta and slirp4netns")
	}
	testenv.Need(t, testenv.Program("pasta", "passt"), testenv.Program("slirp4netns", "slirp4netns"))
	withServers(t, func(t *testing.T, servers int) {
		elsewhereServes(t, servers, server4+":80")
		cfg := egressConfig(t)
		cfg.Network.EgressAllow = []string{server4 + "/32"}
		ways := []string{"ours", "pasta", "slirp4netns"}
		does := map[string]func(format string, args ...any) string{"ours": startInside(t, cfg).do, "pasta": insidePasta(t).do, "slirp4netns": insideSlirp(t).do}
		for _, direction := range []string{"send", "take"} {
			rates := map[string][]float64{}
			for range rounds {
				for _, way := range ways {
					got := does[way]("%s %d %s:80", direction, 1<<28, server4)
					rate, err := strconv.ParseFloat(strings.TrimPrefix(got, "ok "), 64)
					if err != nil {
						if way == ways[0] {
							t.Fatalf("%s %s: %s", way, direction, got)
						}
						t.Logf("%s: %s broke: %s", direction, way, got)
						rate = math.NaN()
					}
					rates[way] = append(rates[way], rate)
				}
			}
			for _, way := range ways {
				var ratios []float64
				for i, rate := range rates[way] {
					if rate == rate {
						ratios = append(ratios, rates["ours"][i]/rate)
					}
				}
				got := slices.DeleteFunc(slices.Clone(rates[way]), math.IsNaN)
				if len(got) == 0 {
					continue
				}
				slices.Sort(ratios)
				slices.Sort(got)
				t.Logf("%s: %-12s %6.2f Gbit/s, ours is %.2f times that (medians of %d; %.2f to %.2f)",
					direction, way, got[len(got)/2]*8/1e9, ratios[len(got)/2], len(got), ratios[0], ratios[len(got)-1])
			}
		}
		for _, way := range ways {
			var took []time.Duration
			for range 200 {
				begin := time.Now()
				if got := does[way]("dial a tcp %s:80", server4); !strings.HasPrefix(got, "ok") {
					t.Fatalf("%s: %s", way, got)
				}
				does[way]("say a x")
				took = append(took, time.Since(begin))
				does[way]("close a")
			}
			slices.Sort(took)
			t.Logf("connect, send, receive: %-12s %v (median of %d)", way, took[len(took)/2], len(took))
		}
	})
}

// insideProgram is an insider that is no container.
func insideProgram(t testing.TB, cmd *exec.Cmd) *insider {
	t.Helper()
	inR, inW := newPipe(t)
	outR, outW := newPipe(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inR.Close()
	outW.Close()
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return newInsider(t, inW, outR)
}

// insidePasta is the program behind pasta.
func insidePasta(t testing.TB) *insider {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testenv.LookPath("pasta"), "--config-net", "--quiet", "--runas", "0", "--", "env", egressVar+"=1", exe)
	return insideProgram(t, cmd)
}

// insideSlirp is the program behind slirp4netns, with the size of packets that its manual recommends.
func insideSlirp(t testing.TB) *insider {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in := insideProgram(t, exec.Command("unshare", "-n", "env", egressVar+"=1", exe))
	pid, err := strconv.Atoi(strings.TrimPrefix(in.do("pid"), "ok "))
	if err != nil {
		t.Fatal(err)
	}
	ready, w := newPipe(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, testenv.LookPath("slirp4netns"), "--configure", "--mtu=65520", "--ready-fd=3", strconv.Itoa(pid), "tap0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &out, &out, []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); cmd.Wait() })
	w.Close()
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		t.Fatal(fmt.Errorf("slirp4netns: %w\n%s", err, &out))
	}
	return in
}
