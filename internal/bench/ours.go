//go:build linux

package main

import "errors"

// This file has our own contender.

// oursName is our row in the tables.
const oursName = "container"

// ours runs a container through the public API: New, Run, Wait, Destroy.
func ours(dir, rootfs string, userns bool) (contender, error) {
	return contender{}, errors.New("the API is not there yet")
}
