// Check prints what containers this host and this user can have, each line with the remedy.
//
//	go run ./examples/check
package main

import (
	"fmt"

	"example.com/container"
)

func main() {
	for _, result := range container.Check() {
		fmt.Println(result)
	}
}
