//go:build linux

package container_test

import (
	"context"
	"fmt"
	"os"

	"example.com/container"
)

func ExampleStore_Open() {
	store, err := container.OpenStore("", nil) // the user's own
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer store.Close()
	img, err := store.Open(context.Background(), "debian:13", &container.PullOptions{
		Progress: func(p container.PullProgress) {
			fmt.Fprintf(os.Stderr, "layer %d of %d: %s %d/%d\n", p.Index+1, p.Count, p.Phase, p.Bytes, p.Total)
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err) // names the image and what to do
		return
	}
	cfg := container.DefaultConfig()
	cfg.Root = img.Root()
	process := img.Process("cat", "/etc/os-release") // instead of the image's Cmd
	_ = process
}
