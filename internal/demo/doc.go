// SPDX-License-Identifier: Apache-2.0

// Command demo attaches three containers to a private node and shows on one
// screen what they can do, what the kernel did for it, and that nothing of them
// is left in the end. It exits with 0 only if all of that is as it should be.
//
// It needs root, the programs that .ci/setup installs, and the go command. The
// node is made of namespaces that this process alone holds: nothing is attached
// to the machine, and nothing outlives the process, however it ends.
package main
