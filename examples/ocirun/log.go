//go:build linux

package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// This file is the log, in logrus's formats, which the callers of an OCI runtime parse.

// openLog opens the log that the flags name.
func (a *app) openLog() (closeLog func(), err error) {
	if a.logFormat != "text" && a.logFormat != "json" {
		return nil, fmt.Errorf("invalid log-format: %q", a.logFormat)
	}
	var out io.Writer = os.Stderr
	closeLog = func() {}
	if a.log != "" {
		f, err := os.OpenFile(a.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_SYNC, 0o644)
		if err != nil {
			return nil, err
		}
		out, closeLog = f, func() { f.Close() }
	}
	options := &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: logAttr}
	if a.debug {
		options.Level = slog.LevelDebug
	}
	if a.logFormat == "json" {
		a.logger = slog.New(slog.NewJSONHandler(out, options))
	} else {
		a.logger = slog.New(slog.NewTextHandler(out, options))
	}
	return closeLog, nil
}

func logAttr(groups []string, attr slog.Attr) slog.Attr {
	switch attr.Key {
	case slog.LevelKey:
		return slog.String("level", strings.ToLower(attr.Value.String()))
	case slog.TimeKey:
		return slog.String("time", attr.Value.Time().UTC().Format(time.RFC3339))
	}
	return attr
}

// fail tells of an error, in the log and, where that is another place, on standard error.
func (a *app) fail(code int, err error) int {
	a.logger.Error(err.Error())
	if a.log != "" {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}
