//go:build linux

package container

import (
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/cpu"
)

// This file chooses among the platforms that an image index offers.

// platform is the "platform" object of a descriptor, and the same fields of an image configuration.
type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

func (p platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// parsePlatform reads "os/architecture[/variant]".
func parsePlatform(s string) (platform, error) {
	parts := strings.Split(s, "/")
	for _, part := range parts {
		if part == "" {
			parts = nil
		}
	}
	switch len(parts) {
	case 2:
		return platform{OS: parts[0], Architecture: parts[1]}, nil
	case 3:
		return platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}, nil
	}
	return platform{}, fmt.Errorf("platform %q is not of the form os/architecture or os/architecture/variant", s)
}

// acceptablePlatforms lists what will do for want, the best first. An empty want is the host.
func acceptablePlatforms(want string) ([]platform, error) {
	if want == "" {
		return variantsBelow(platform{OS: "linux", Architecture: runtime.GOARCH, Variant: hostVariant()}), nil
	}
	p, err := parsePlatform(want)
	if err != nil {
		return nil, err
	}
	if p.Variant == "" {
		switch p.Architecture {
		case "arm64":
			p.Variant = "v8"
		case "arm":
			p.Variant = "v7"
		}
	}
	return variantsBelow(p), nil
}

// variants lists, per architecture, the variants from the most demanding to the least. An image without
// one has the variant that the second column names.
var variants = map[string]struct {
	order   []string
	unnamed string
}{
	"amd64": {[]string{"v4", "v3", "v2", "v1"}, "v1"},
	"arm64": {[]string{"v8"}, "v8"},
	"arm":   {[]string{"v8", "v7", "v6", "v5"}, "v7"},
}

// variantsBelow lists p and the variants of its architecture that a processor of variant p runs too.
func variantsBelow(p platform) []platform {
	list := []platform{p}
	known := variants[p.Architecture]
	variant := p.Variant
	if variant == "" {
		variant = known.unnamed
	}
	below := false
	for _, v := range known.order {
		below = below || v == variant
		if !below {
			continue
		}
		if v == known.unnamed {
			list = append(list, platform{OS: p.OS, Architecture: p.Architecture})
		}
		list = append(list, platform{OS: p.OS, Architecture: p.Architecture, Variant: v})
	}
	return list
}

// hostVariant is the highest variant that this processor has.
func hostVariant() string {
	switch runtime.GOARCH {
	case "amd64":
		x := &cpu.X86
		v2 := x.HasSSSE3 && x.HasSSE41 && x.HasSSE42 && x.HasPOPCNT && x.HasCX16
		v3 := v2 && x.HasAVX && x.HasAVX2 && x.HasBMI1 && x.HasBMI2 && x.HasFMA && x.HasOSXSAVE
		switch {
		case v3:
			return "v3"
		case v2:
			return "v2"
		}
		return "v1"
	case "arm64":
		return "v8"
	case "arm":
		return "v7"
	}
	return ""
}

// choosePlatform returns the index of the best offer, or -1. Offers without a platform, and those
// that are not images ("unknown/unknown": attestations), are passed over.
func choosePlatform(acceptable []platform, offers []descriptor) int {
	for _, want := range acceptable {
		for i := range offers {
			if offers[i].Platform != nil && *offers[i].Platform == want {
				return i
			}
		}
	}
	return -1
}

// listPlatforms names the offers for an error message.
func listPlatforms(offers []descriptor) string {
	var names []string
	for _, d := range offers {
		if d.Platform != nil && d.Platform.OS != "unknown" {
			names = append(names, d.Platform.String())
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}
