// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

//go:generate sh -c "go run . docs > cli.md && mv cli.md ../../docs/cli.md"

// result is the annotation of a command with the fields of its JSON. One with a
// flag at its end has those of what is printed with that flag.
const result = "result"

// fieldDoc describes one field of a command's JSON.
type fieldDoc struct{ Path, Type, Meaning string }

// amountType is the word for trafficJSON, which the reference describes once.
const amountType = "amount"

// describes says what a command prints as JSON: a value of the type of v, whose
// fields have a doc tag each.
func describes(v any, c *cobra.Command) *cobra.Command { return describesWith("", v, c) }

// describesWith is describes for what a command prints with a flag.
func describesWith(flag string, v any, c *cobra.Command) *cobra.Command {
	t := reflect.TypeOf(v)
	path := ""
	if t.Kind() == reflect.Slice {
		t, path = t.Elem(), "[]"
	}
	text, err := json.Marshal(fieldsOf(t, path))
	if err != nil {
		panic(err) // they are strings
	}
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	c.Annotations[result+flag] = string(text)
	return c
}

func fieldsOf(t reflect.Type, path string) []fieldDoc {
	var fields []fieldDoc
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			fields = append(fields, fieldsOf(f.Type, path)...)
			continue
		}
		where := strings.TrimPrefix(path+"."+name, ".")
		kind, inner := jsonType(f.Type)
		fields = append(fields, fieldDoc{where, kind, f.Tag.Get("doc")})
		if inner != nil {
			if strings.HasPrefix(kind, "list") {
				where += "[]"
			}
			fields = append(fields, fieldsOf(inner, where)...)
		}
	}
	return fields
}

// jsonType returns the word for a type, and the struct that its fields are of.
func jsonType(t reflect.Type) (kind string, inner reflect.Type) {
	if t == reflect.TypeFor[trafficJSON]() {
		return amountType, nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		kind, inner = jsonType(t.Elem())
		return kind + " or null", inner
	case reflect.Slice:
		kind, inner = jsonType(t.Elem())
		return "list of " + kind + "s", inner
	case reflect.Struct:
		return "object", t
	case reflect.String:
		return "string", nil
	case reflect.Bool:
		return "boolean", nil
	default:
		return "number", nil
	}
}

// docsCommand writes docs/cli.md.
func (a *app) docsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "docs",
		Short:   "Write the reference of all commands as Markdown",
		Example: "  ziplinectl docs > docs/cli.md",
		Hidden:  true,
		RunE: func(c *cobra.Command, _ []string) error {
			var text strings.Builder
			writeReference(&text, c.Root())
			if _, err := io.WriteString(a.out, text.String()); err != nil {
				return fmt.Errorf("write reference: %w", err)
			}
			return nil
		},
	}
}

const referenceHead = `<!-- Written by "make docs" from the commands themselves. Do not edit. -->

# ziplinectl

`

const referenceRules = `
Everywhere: nothing but the result is on stdout; hints and errors are on stderr. In tables "-" stands for nothing. In JSON
field names do not change, lists are never null, and times are RFC 3339 in UTC. New fields may be added. An "amount" is an
object with the numbers %s.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | wrong usage |
| 3 | done, and something on the node is not as it should be |
| 4 | not permitted |

Completion: ` + "`ziplinectl completion bash > /etc/bash_completion.d/ziplinectl`" + ` (also zsh, fish, powershell).

`

func writeReference(w *strings.Builder, root *cobra.Command) {
	w.WriteString(referenceHead)
	intro, _, _ := strings.Cut(root.Long, "\n\nExit codes:") // they have a table here
	w.WriteString(intro + "\n")
	fmt.Fprintf(w, referenceRules, amountText())
	w.WriteString("Flags of every command:\n\n```\n" + root.PersistentFlags().FlagUsages() + "```\n")
	var list []*cobra.Command
	for _, c := range documented(root) {
		list = append(list, c)
		fmt.Fprintf(w, "\n- [%s](#%s): %s", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), lowerFirst(c.Short))
	}
	w.WriteString("\n")
	for _, c := range list {
		writeCommand(w, c)
	}
}

func amountText() string {
	var words []string
	for _, f := range fieldsOf(reflect.TypeFor[trafficJSON](), "") {
		words = append(words, fmt.Sprintf("`%s` (%s)", f.Path, f.Meaning))
	}
	return strings.Join(words, " and ")
}

// documented lists the commands that can be run, in their order.
func documented(c *cobra.Command) []*cobra.Command {
	var list []*cobra.Command
	if c.HasParent() && c.Runnable() {
		list = append(list, c)
	}
	for _, child := range c.Commands() {
		if !child.Hidden && child.Name() != "help" && child.Name() != "completion" {
			list = append(list, documented(child)...)
		}
	}
	return list
}

func writeCommand(w *strings.Builder, c *cobra.Command) {
	fmt.Fprintf(w, "\n## %s\n\n", c.CommandPath())
	text := strings.TrimSpace(c.Long)
	if text == "" {
		text = c.Short + "."
	}
	fmt.Fprintf(w, "%s\n\n```\n%s\n```\n", escape(text), strings.TrimSpace(c.UseLine()))
	if flags := c.LocalNonPersistentFlags(); flags.HasFlags() {
		fmt.Fprintf(w, "\n```\n%s```\n", flags.FlagUsages())
	}
	fmt.Fprintf(w, "\nExamples:\n\n```console\n%s\n```\n", dedent(c.Example))
	if wanted := c.Annotations[needs]; wanted != "" {
		fmt.Fprintf(w, "\nNeeds %s: root has them.\n", strings.ReplaceAll(wanted, " ", ", "))
	}
	for _, key := range slices.Sorted(maps.Keys(c.Annotations)) {
		if flag, ok := strings.CutPrefix(key, result); ok {
			writeFields(w, flag, c.Annotations[key])
		}
	}
}

func writeFields(w *strings.Builder, flag, annotation string) {
	var fields []fieldDoc
	if annotation == "" || json.Unmarshal([]byte(annotation), &fields) != nil {
		return
	}
	shape := "an object"
	if strings.HasPrefix(fields[0].Path, "[]") {
		shape = "a list of objects"
	}
	with := ""
	if flag != "" {
		with = " with " + flag
	}
	fmt.Fprintf(w, "\nJSON%s is %s:\n\n| field | type | meaning |\n|---|---|---|\n", with, shape)
	for _, f := range fields {
		fmt.Fprintf(w, "| `%s` | %s | %s |\n", strings.TrimPrefix(f.Path, "[]."), f.Type, escape(f.Meaning))
	}
}

// escape keeps Markdown from reading what is meant literally.
func escape(s string) string { return strings.NewReplacer("|", `\|`, "*", `\*`, "_", `\_`).Replace(s) }

func dedent(s string) string {
	lines := strings.Split(strings.Trim(s, "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "  ")
	}
	return strings.Join(lines, "\n")
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }
