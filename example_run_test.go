//go:build linux

package container_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"strings"
	"testing"

	"example.com/container/internal/testenv"
)

// TestExamples runs the examples that start containers, and compares what they print with the
// comment at their end.
func TestExamples(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.Overlay)
	wants := exampleComments(t)
	limited := map[string]bool{"ExampleExitError_Verdict": true, "ExampleContainer_Pause": true, "ExampleContainer_Stats": true}
	for name, example := range map[string]func(){
		"ExampleContainer":              ExampleContainer,
		"ExampleContainer_Run_notFound": ExampleContainer_Run_notFound,
		"ExampleContainer_Stop":         ExampleContainer_Stop,
		"ExampleHook":                   ExampleHook,
		"ExampleHook_func":              ExampleHook_func,
		"ExampleContainer_Signal":       ExampleContainer_Signal,
		"ExampleProcess_Attach":         ExampleProcess_Attach,
		"ExampleForwardSignals":         ExampleForwardSignals,
		"ExampleContainerState":         ExampleContainerState,
		"ExampleLoad":                   ExampleLoad,
		"ExampleExitError":              ExampleExitError,
		"ExampleProcess":                ExampleProcess,
		"ExampleProcess_StdinPipe":      ExampleProcess_StdinPipe,
		"ExampleProcess_StdoutPipe":     ExampleProcess_StdoutPipe,
		"ExampleMount":                  ExampleMount,
		"ExampleExplain":                ExampleExplain,
		"ExampleExitError_Verdict":      ExampleExitError_Verdict,
		"ExampleContainer_Pause":        ExampleContainer_Pause,
		"ExampleContainer_Stats":        ExampleContainer_Stats,
	} {
		t.Run(name, func(t *testing.T) {
			if limited[name] {
				testenv.Need(t, testenv.Cgroup)
			}
			if wants[name] == "" {
				t.Fatal("the example does not say what it prints")
			}
			if got := printed(t, example); got != wants[name] {
				t.Errorf("printed:\n%s\nwant:\n%s", got, wants[name])
			}
		})
	}
}

// exampleComments returns the last comment in each example.
func exampleComments(t *testing.T) map[string]string {
	t.Helper()
	comments := map[string]string{}
	for _, name := range []string{"example_test.go", "example_hooks_test.go", "example_limits_test.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Skip("needs the source: run the test in the directory of the package")
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			for _, c := range file.Comments {
				if c.Pos() > f.Body.Pos() && c.End() < f.Body.End() {
					comments[f.Name.Name] = c.Text()
				}
			}
		}
	}
	return comments
}

// printed returns what f prints to the standard output, with lines that end as those of a terminal do not.
func printed(t *testing.T, f func()) string {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stdout := os.Stdout
	os.Stdout = out
	defer func() { os.Stdout = stdout }()
	f()
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimLeft(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")
}
