// SPDX-License-Identifier: Apache-2.0

package bpf

// Without strict aliasing: lib/answer.h compares structs by words.

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -tags linux Zipline zipline.c -- -mcpu=v3 -std=gnu11 -fno-strict-aliasing -nostdinc -Wall -Wextra -Werror -Wshadow -Wno-unused-function
//go:generate go run ./internal/digest zipline_bpfel.o zipline_digest.go
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -tags linux -no-global-types -type event -type tuple -type key -type prefix Trace trace.c -- -mcpu=v3 -std=gnu11 -fno-strict-aliasing -nostdinc -Wall -Wextra -Werror -Wshadow -Wno-unused-function
