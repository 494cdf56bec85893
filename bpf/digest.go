// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"
)

// Digest identifies the embedded object file: the first 16 bytes of its SHA-256
// in hexadecimal. Two builds with the same digest load the same programs.
var Digest = sync.OnceValue(func() string {
	sum := sha256.Sum256(_ZiplineBytes)
	return hex.EncodeToString(sum[:16])
})
