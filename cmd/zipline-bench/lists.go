// SPDX-License-Identifier: Apache-2.0

// Flags that are lists with commas.

package main

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/zipline-cni/zipline/bench"
)

// listed returns what stands between the commas of a text.
func listed(text string) []string {
	fields := strings.Split(text, ",")
	for i, field := range fields {
		fields[i] = strings.TrimSpace(field)
	}
	return fields
}

// caseNames defines a flag that names cases, which nobody knows yet.
func caseNames(flags *flag.FlagSet, name, verb string, chosen *[]bench.Subject) {
	preset := "all"
	if len(*chosen) > 0 {
		preset = join(*chosen)
	}
	flags.Func(name, fmt.Sprintf("names of the cases to %s, with commas between them (default %s)", verb, preset), func(text string) error {
		*chosen = nil
		for _, field := range listed(text) {
			*chosen = append(*chosen, bench.Subject(field))
		}
		return nil
	})
}

// subset defines a flag that is a choice of some of the values.
func subset[T ~string](flags *flag.FlagSet, name string, chosen *[]T, values ...T) {
	all := slices.Clone(values)
	flags.Func(name, fmt.Sprintf("some of %s (default %s)", join(all), join(*chosen)), func(text string) error {
		*chosen = nil
		for _, field := range listed(text) {
			value := T(field)
			if !slices.Contains(all, value) {
				return fmt.Errorf("%q is not one of %s", value, join(all))
			}
			if slices.Contains(*chosen, value) {
				return errors.New("the same twice")
			}
			*chosen = append(*chosen, value)
		}
		return nil
	})
}

func join[T ~string](values []T) string {
	var texts []string
	for _, v := range values {
		texts = append(texts, string(v))
	}
	return strings.Join(texts, ",")
}

// numbers defines a flag that is a list of numbers.
func numbers(flags *flag.FlagSet, name, what string, chosen *[]int) {
	flags.Func(name, fmt.Sprintf("%s, ascending (default %v)", what, *chosen), func(text string) (err error) {
		*chosen, err = parseSizes(text)
		return err
	})
}

// parseSizes reads ascending positive numbers with commas between them.
func parseSizes(text string) ([]int, error) {
	var sizes []int
	for _, field := range listed(text) {
		size, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		if size < 1 || len(sizes) > 0 && size <= sizes[len(sizes)-1] {
			return nil, errors.New("not ascending from 1 on")
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}
