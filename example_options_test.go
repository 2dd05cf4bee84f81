package container_test

import (
	"fmt"

	"example.com/container"
)

func ExampleParseMountOptions() {
	m, err := container.ParseMountOptions("nosuid,rbind,ro,size=64m,rslave")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Type, m.Flags, m.Propagation, m.Data)
	fmt.Println(m.Options())
	// Output:
	// bind ro,nosuid,recursive rslave size=64m
	// rbind,ro,nosuid,rslave,size=64m
}

func ExampleParseSignal() {
	for _, s := range []string{"SIGTERM", "hup", "9", "RTMIN+3"} {
		sig, err := container.ParseSignal(s)
		fmt.Println(int(sig), err)
	}
	_, err := container.ParseSignal("SIGNOTHING")
	fmt.Println(err)
	// Output:
	// 15 <nil>
	// 1 <nil>
	// 9 <nil>
	// 37 <nil>
	// Signal: unknown signal "SIGNOTHING"; use a name of signal(7), "RTMIN+3", or a number from 1 to 64
}

func ExampleDefaultCapabilitiesConfig() {
	caps := container.DefaultCapabilitiesConfig()
	fmt.Println(len(caps.Bounding), "of", len(container.AllCapabilities()))
	fmt.Println(caps.Inheritable, caps.Ambient)
	// Output:
	// 11 of 41
	// [] []
}

func ExampleCheck() {
	for _, r := range container.Check() {
		if !r.OK {
			fmt.Println(r.Name, "is missing. Do this:", r.Remedy)
		}
	}
}
