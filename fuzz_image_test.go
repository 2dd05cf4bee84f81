//go:build linux

package container

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/klauspost/compress/zstd"
)

// This file feeds what strangers write to the readers of images, and compares them with a second reading: another
// implementation, the same again, or what must be true of any result.

// FuzzReference: a reference means the same when it is printed and read again, asks for nothing outside of its
// repository, and has one safe file name.
func FuzzReference(f *testing.F) {
	for _, s := range []string{
		"debian", "debian:13", "registry.example.com:5000/a/b:c", "a@sha256:" + strings.Repeat("ab", 32), "localhost/x", "127.0.0.1:5000/x:y", "[::1]:5000/x", "registry.example.com/../../x",
		"registry.example.com/a/./b", "registry.example.com//a", "a/b@sha256:../../x", "oci:x", "x:5000/y", "user:password@host/x", "host/x?y#z", "HOST.example/x", "0:.", "x:..",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		src, err := newRegistrySource(s, &PullOptions{})
		if err != nil {
			if !errors.Is(err, ErrInvalidImage) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		full := src.ref.Name()
		again, err := newRegistrySource(full, &PullOptions{})
		if err != nil || again.ref.Name() != full || again.ref.Context().String() != src.ref.Context().String() {
			t.Fatalf("%q is %q, and again %v, %v", s, full, again, err)
		}
		repo := src.ref.Context()
		if p := "/v2/" + repo.RepositoryStr() + "/manifests/" + src.ref.Identifier(); path.Clean(p) != p || strings.ContainsAny(p, "?#%\\ \x00\n") {
			t.Fatalf("%q asks for %q", s, p)
		}
		if host := repo.RegistryStr(); host == "" || strings.ContainsAny(host, "/@?#\\ \n") {
			t.Fatalf("%q is at %q", s, host)
		}
		if file := escapeRef(full); file == "" || file[0] == '.' || len(file) > 250 || strings.ContainsAny(file, "/\x00") || strings.HasPrefix(full, "file ") {
			t.Fatalf("%q is in %q", s, file)
		}
	})
}

// FuzzDigest: exactly what the expression says.
func FuzzDigest(f *testing.F) {
	hex := strings.Repeat("0a", 32)
	for _, s := range []string{"sha256:" + hex, "sha256:" + strings.ToUpper(hex), "sha512:" + hex + hex, "sha256:../../" + hex[:58], "sha256:" + hex + "\n", ""} {
		f.Add(s)
	}
	exact := regexp.MustCompile(`\Asha256:[0-9a-f]{64}\z`)
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDigest(s)
		var text digest
		terr := text.UnmarshalText([]byte(s))
		if (err == nil) != exact.MatchString(s) || (terr == nil) != (err == nil) || err == nil && (string(d) != s || text != d || "sha256:"+d.hex() != s) || err != nil && (d != "" || !errors.Is(err, ErrInvalidImage)) {
			t.Fatalf("%q: %q, %v; %v", s, d, err, terr)
		}
	})
}

func fuzzDocuments(f *testing.F) {
	d := `"sha256:` + strings.Repeat("0a", 32) + `"`
	desc := `{"mediaType":"x","digest":` + d + `,"size":3,"platform":{"os":"linux","architecture":"arm64","variant":"v8"},"annotations":{"a":"b","A":"c"},"urls":["http://x"]}`
	for _, s := range []string{
		`{"schemaVersion":2,"mediaType":"` + mediaOCIManifest + `","config":` + desc + `,"layers":[` + desc + `,` + desc + `]}`,
		`{"schemaVersion":2,"mediaType":"` + mediaOCIIndex + `","manifests":[` + desc + `]}`,
		`{"schemaVersion":2,"manifests":[],"layers":[]}`, `{"manifests":null}`, `{"Manifests":[],"config":{},"layers":[]}`, `{"manife\u017fts":[]}`, `{"schemaVersion":1,"fsLayers":[]}`,
		`{"config":{"digest":` + d + `},"layers":null}`, `{"layers":[{"digest":null}],"config":{"Digest":` + d + `}}`, strings.Repeat(`[`, 100), `{"a":{"b":[{"c":1e999}]}}`, "{\"\xff\":1,\"\xfe\":2}",
		`{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Cmd":["x"],"Entrypoint":null,"User":"1:2","Labels":{"a":"","A":""},"Volumes":{"/x":{}},"StopSignal":"9","Healthcheck":{"Test":["NONE"],"Interval":5}},"rootfs":{"type":"layers","diff_ids":[` + d + `]}}`,
		`{"config":{"env":["A=b"],"Env":["C=d"]}}`, `{"rootfs":{"diff_ids":[null]}}`,
	} {
		f.Add([]byte(s), "")
		f.Add([]byte(s), mediaOCIManifest)
	}
}

// FuzzManifest compares with a reading that knows exact names only, and decides by them what the document is.
func FuzzManifest(f *testing.F) {
	fuzzDocuments(f)
	f.Fuzz(func(t *testing.T, b []byte, called string) {
		m, err := parseManifest(b, called)
		if err != nil {
			if !errors.Is(err, ErrInvalidImage) {
				t.Fatal(err)
			}
			return
		}
		var doc map[string]any
		if err := json.Unmarshal(b, &doc); err != nil {
			t.Fatalf("no object: %v", err)
		}
		_, index := doc["manifests"]
		_, layers := doc["layers"]
		_, config := doc["config"]
		if index == (layers || config) || m.isIndex() != index || m.isIndex() && (m.Layers != nil || m.Config.Digest != "") {
			t.Fatalf("%s\nis an index: %v", b, m.isIndex())
		}
		same := func(got []descriptor, want any) {
			list, _ := want.([]any)
			if len(list) != len(got) {
				t.Fatalf("%s\n%d descriptors, %v", b, len(got), want)
			}
			for i, d := range got {
				fields, _ := list[i].(map[string]any)
				if text, _ := fields["digest"].(string); text != string(d.Digest) {
					t.Fatalf("%s\ndigest %q, %q", b, d.Digest, text)
				}
				if n, _ := fields["size"].(float64); int64(n) != d.Size && d.Size < 1<<50 && d.Size > -1<<50 {
					t.Fatalf("%s\nsize %d, %v", b, d.Size, n)
				}
			}
		}
		same(m.Layers, doc["layers"])
		same(m.Manifests, doc["manifests"])
		if !index {
			same([]descriptor{m.Config}, []any{doc["config"]})
		}
		// What was read can be written, and is read as the same. A name that is no UTF-8 is written another way.
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseManifest(text, called); !index && (err != nil || len(again.Layers) != len(m.Layers) || again.Config.Digest != m.Config.Digest) {
			if len(m.Layers) > 0 {
				t.Fatalf("%s\nis written as %s: %+v, %v", b, text, again, err)
			}
		}
	})
}

// FuzzImageConfig: the digests are digests, and what the image wants to run survives the store's record.
func FuzzImageConfig(f *testing.F) {
	fuzzDocuments(f)
	f.Fuzz(func(t *testing.T, b []byte, mediaType string) {
		for _, n := range []int{1, 2} {
			m := &manifest{Config: descriptor{MediaType: mediaType}, Layers: make([]descriptor, n)}
			c, err := parseConfigFile(b, m)
			if err != nil {
				if !errors.Is(err, ErrInvalidImage) {
					t.Fatal(err)
				}
				continue
			}
			for _, id := range c.RootFS.DiffIDs {
				if _, err := parseDigest(string(id)); id != "" && err != nil {
					t.Fatal(err)
				}
			}
			record := imageRecord{Manifest: digestOf(b), Config: digestOf(b), Run: c.Config, Platform: c.platform}
			text, err := json.Marshal(record)
			if err != nil {
				t.Fatal(err)
			}
			var again imageRecord
			if err := json.Unmarshal(text, &again); err != nil || again.Manifest != record.Manifest || !reflect.DeepEqual((&Image{Config: again.Run}).Process("x"), (&Image{Config: record.Run}).Process("x")) {
				t.Fatalf("%s\n%+v\n%+v, %v", b, record, again, err)
			}
		}
	})
}

// FuzzEntryName compares with the plainest reading of a name.
func FuzzEntryName(f *testing.F) {
	for _, n := range hostileNames {
		f.Add(n[0])
	}
	f.Fuzz(func(t *testing.T, name string) {
		want, refused := []string{}, len(name) > maxNameLength || strings.Contains(name, "\x00")
		for _, part := range strings.Split(name, "/") {
			switch {
			case part == "..", len(part) > 255:
				refused = true
			case part != "" && part != ".":
				want = append(want, part)
			}
		}
		refused = refused || len(want) > maxNameDepth
		got, err := cleanName(name)
		if (err != nil) != refused || err == nil && got != strings.Join(want, "/") || err != nil && !errors.Is(err, ErrInvalidImage) && !errors.Is(err, ErrLimit) {
			t.Fatalf("%q: %q, %v; want %q, refused %v", name, got, err, want, refused)
		}
		if err == nil {
			if again, err := cleanName(got); err != nil || again != got || got != "" && !filepath.IsLocal(got) {
				t.Fatalf("%q is %q, and again %q, %v", name, got, again, err)
			}
		}
	})
}

// FuzzDecompress compares gzip with the standard library's, and zstd with a decoder of the whole.
func FuzzDecompress(f *testing.F) {
	enc, _ := zstd.NewWriter(nil)
	text := []byte(strings.Repeat("content ", 100))
	for _, b := range [][]byte{
		imageGzip(text), append(imageGzip(text), imageGzip(text)...), append(imageGzip(text), 0, 0, 0), append(imageGzip(nil), "junk"...), imageGzip(text)[:20], enc.EncodeAll(text, nil),
		enc.EncodeAll(nil, nil), []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"), text, nil, []byte("\xfd7zXZ\x00"), []byte("BZh9"), {0x28, 0xb5, 0x2f, 0xfd, 0, 0xff, 0, 0, 0}, {0x1f}, {0x1f, 0x8b},
	} {
		f.Add(b)
	}
	const most = 4 << 20
	read := func(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, most)) }
	f.Fuzz(func(t *testing.T, b []byte) {
		z, err := decompress(bytes.NewReader(b), 1<<20)
		var got []byte
		if err == nil {
			got, err = read(z)
			z.Close()
		}
		if err != nil && !errors.Is(err, ErrInvalidImage) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrLimit) {
			t.Fatalf("an error without a type: %v", err)
		}
		var want []byte
		var werr error
		switch {
		case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
			trimmed := b
			if err == nil { // padding of zeros is allowed here, and not there
				trimmed = bytes.TrimRight(b, "\x00")
				trimmed = append(trimmed, make([]byte, min(len(b)-len(trimmed), 8))...)
			}
			for { // as much of the padding as belongs to the last member
				var r *gzip.Reader
				if r, werr = gzip.NewReader(bytes.NewReader(trimmed)); werr == nil {
					want, werr = read(r)
				}
				if werr == nil || len(trimmed) == 0 || trimmed[len(trimmed)-1] != 0 || err != nil {
					break
				}
				trimmed = trimmed[:len(trimmed)-1]
			}
		case isZstd(b):
			r, _ := zstd.NewReader(nil, zstd.WithDecoderMaxWindow(1<<20), zstd.WithDecoderMaxMemory(most+1), zstd.WithDecoderConcurrency(1))
			defer r.Close()
			want, werr = r.DecodeAll(b, nil)
			if werr != nil || len(want) >= most {
				return // it knows no frame before it has all of it
			}
		default:
			want = b
		}
		if err == nil && (werr != nil || !bytes.Equal(got, want)) || err != nil && werr == nil && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrLimit) {
			t.Fatalf("%d bytes, %v; the other reads %d bytes, %v", len(got), err, len(want), werr)
		}
	})
}

// FuzzArchive compares the files of an archive with those that archive/tar reads one after the other.
func FuzzArchive(f *testing.F) {
	f.Add(rawTar(rawFile("a", "1"), rawFile("./b/../c", "2"), rawFile("a", "3"), rawLink("l", "b/../a"), rawHard("h", "l"), rawLink("loop", "loop"), rawFile("../../x", "4")))
	f.Add(rawTar(rawEntry{name: "big", size: 1 << 40}))
	f.Add(imageTar(f, imageFile(strings.Repeat("n", 200), "long"), imageDir("d", 0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(t.TempDir(), "archive")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := openArchive(t.Context(), file)
		if err != nil {
			if !errors.Is(err, ErrInvalidImage) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrLimit) {
				t.Fatal(err)
			}
			return
		}
		defer a.f.Close()
		content := map[string]string{}
		for tr := tar.NewReader(bytes.NewReader(b)); ; {
			h, err := tr.Next()
			if h == nil {
				break
			}
			name := archiveName(h.Name)
			switch h.Typeflag {
			case tar.TypeReg:
				text, rerr := io.ReadAll(io.LimitReader(tr, 1<<20))
				if content[name] = string(text); rerr != nil || isSparse(h) || len(text) == 1<<20 {
					content[name] = "?" // whatever it is, the digest will tell
				}
			case tar.TypeSymlink, tar.TypeLink:
				delete(content, name)
			}
			if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
				break
			}
		}
		for name := range a.index {
			r, size, err := a.open(name)
			if err != nil {
				continue
			}
			text, rerr := io.ReadAll(io.LimitReader(r, 1<<20))
			if want, ok := content[name]; ok && want != "?" && (rerr != nil || string(text) != want || int64(len(want)) != size) {
				t.Fatalf("%q: %q, %d bytes, %v; want %q", name, text, size, rerr, want)
			}
		}
	})
}

// FuzzPlatform: what is printed is read as the same, and the choice is one that was acceptable, the best.
func FuzzPlatform(f *testing.F) {
	f.Add("linux/arm64", "linux/arm64/v8 linux/amd64 linux/arm/v7")
	f.Add("linux/arm", "linux/arm/v5 linux/arm/v6 x/y")
	f.Fuzz(func(t *testing.T, want, offers string) {
		acceptable, err := acceptablePlatforms(want)
		if err != nil {
			return
		}
		var list []descriptor
		for s := range strings.FieldsSeq(offers) {
			p, err := parsePlatform(s)
			if err != nil {
				list = append(list, descriptor{})
				continue
			}
			if again, err := parsePlatform(p.String()); err != nil || again != p || p.String() != s {
				t.Fatalf("%q is %+v, and again %+v, %v", s, p, again, err)
			}
			list = append(list, descriptor{Platform: &p})
		}
		best := len(acceptable)
		for _, d := range list {
			for i, a := range acceptable {
				if d.Platform != nil && *d.Platform == a {
					best = min(best, i)
				}
			}
		}
		i := choosePlatform(acceptable, list)
		if (i < 0) != (best == len(acceptable)) || i >= 0 && *list[i].Platform != acceptable[best] {
			t.Fatalf("%q of %q: %d, best %d", want, offers, i, best)
		}
	})
}

// fuzzNetwork answers each request of a registry as the fuzzer says, and notes who would have seen the credentials.
type fuzzNetwork struct {
	t         *testing.T
	challenge string
	location  string
	status    int
	requests  int
}

func (n *fuzzNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	n.requests++
	body := []byte{}
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	host := r.URL.Hostname()
	own := host == "registry.example.com" || strings.HasSuffix(host, ".registry.example.com") || host == "example.com"
	if secret := secretIn(fmt.Sprint(r.Header, r.URL, string(body))); secret != "" && (!own || r.URL.Scheme != "https") && !strings.Contains(n.challenge+n.location, secret) {
		n.t.Errorf("%s was sent to %s", secret, r.URL)
	}
	resp := &http.Response{StatusCode: n.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"token":"t0ken","refresh_token":"r3fresh"}`)), Request: r, ProtoMajor: 1, ProtoMinor: 1}
	if r.URL.Host == "registry.example.com" && r.URL.Path == "/v2/" {
		resp.StatusCode = http.StatusUnauthorized
	}
	if strings.Contains(r.URL.Path, "token") {
		resp.StatusCode = http.StatusOK
	}
	if n.challenge != "" {
		resp.Header.Set("WWW-Authenticate", n.challenge)
	}
	if n.location != "" {
		resp.Header.Set("Location", n.location)
	}
	return resp, nil
}

// FuzzChallenge: whatever a registry answers, only it and its kin see credentials, and no more than a few requests are made.
func FuzzChallenge(f *testing.F) {
	for _, c := range []string{
		`Bearer realm="https://registry.example.com/token",service="x",scope="y"`, `Bearer realm="https://evil.example/token"`, `Basic realm="x"`, `bearer realm=https://auth.example.com/token`, `Bearer`, `Bearer realm="`,
		`Bearer realm="https://registry.example.com@evil.example/token"`, `Bearer realm="https://registry.example.com\@evil.example/token"`, `Bearer realm="http://registry.example.com/token"`, `Basic realm="a", Bearer realm="https://x/token"`,
		`Bearer realm="https://evil.example/token?x=.registry.example.com"`, `Bearer realm="https://169.254.169.254/token"`, `Bearer realm="//evil.example/token"`, `Bearer realm="https://registry.example.com:1/token"`,
	} {
		for _, status := range []uint8{0, 1, 2, 3} {
			f.Add(c, "https://sub.registry.example.com/x", status, uint8(status))
			f.Add(c, "//evil.example/x", status, uint8(1))
		}
	}
	f.Fuzz(func(t *testing.T, challenge, location string, status, kind uint8) {
		src, err := newRegistrySource("registry.example.com/test/image:v1", &PullOptions{Keychain: fixedKeychain{[]authn.AuthConfig{
			attackKeychains["password"], attackKeychains["identity"], attackKeychains["token"],
		}[kind%3]}})
		if err != nil {
			t.Fatal(err)
		}
		network := &fuzzNetwork{t: t, challenge: challenge, location: location, status: []int{200, 401, 302, 307, 404, 403}[status%6]}
		src.guard.inner = network
		_, _, err = src.root(t.Context())
		if network.requests > 60 {
			t.Errorf("%d requests", network.requests)
		}
		if err != nil && !strings.Contains(challenge+location, secretIn(err.Error())) {
			t.Errorf("in a message: %v", err)
		}
	})
}

// FuzzAddress: an IPv4 address is private in all of its disguises, or in none.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"169.254.169.254", "8.8.8.8", "10.0.0.1", "100.64.0.1", "0.0.0.0", "0.0.0.1", "255.255.255.255", "fe80::1%eth0", "::1", "fd00::1", "2001:db8::1", "::ffff:127.0.0.1"} {
		f.Add(netip.MustParseAddr(s).AsSlice())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		private := isPrivate(a)
		if a.WithZone("x").IsValid() && isPrivate(a.WithZone("x")) != private || isMetadata(a) && !private {
			t.Fatalf("%s: %v", a, private)
		}
		if !a.Is4() {
			return
		}
		v4 := a.As4()
		for _, prefix := range []string{"::ffff:0:0", "64:ff9b::", "64:ff9b:1::"} {
			b := netip.MustParseAddr(prefix).As16()
			copy(b[12:], v4[:])
			if got := isPrivate(netip.AddrFrom16(b)); got != private {
				t.Fatalf("%s is private: %v; as %s: %v", a, private, netip.AddrFrom16(b), got)
			}
		}
		if got := isPrivate(netip.AddrFrom16([16]byte{0x20, 2, v4[0], v4[1], v4[2], v4[3], 15: 1})); got != private {
			t.Fatalf("%s is private: %v; behind 6to4: %v", a, private, got)
		}
		first := int(v4[0])
		public := first != 0 && first != 10 && first != 127 && first < 224 && !(first == 100 && v4[1]&0xc0 == 64) && !(first == 169 && v4[1] == 254) && !(first == 172 && v4[1]&0xf0 == 16) &&
			!(first == 192 && (v4[1] == 168 || v4[1] == 0 && v4[2] == 0)) && !(first == 198 && v4[1]&0xfe == 18)
		if public == private {
			t.Fatalf("%s is private: %v", a, private)
		}
	})
}
