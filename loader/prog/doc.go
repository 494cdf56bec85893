// SPDX-License-Identifier: Apache-2.0

// Package prog attaches anybody's tc programs to devices, lists what is attached
// and takes it off again. It knows nothing of zipline's own programs.
//
// A program is attached by TCX, at a place relative to the others of that side of
// the device, or by clsact. By TCX without a pin the device owns the attachment:
// it lives as long as the device. With a pin a bpf_link in the bpffs owns it: it
// ends with the pin, and attaching to a pin that is there replaces the link's
// program in one step.
//
// All functions work on the network namespace of the calling thread.
package prog
