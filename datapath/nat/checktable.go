// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrTableMissing is what the [CheckError] of a missing table matches with
// [errors.Is].
var ErrTableMissing = errors.New("table inet " + TableName + " is missing")

// Is reports whether the table is missing and target is [ErrTableMissing].
func (e *CheckError) Is(target error) bool {
	return target == ErrTableMissing && len(e.Problems) == 1 && e.Problems[0] == missingTable
}

var missingTable = Problem{"table inet " + TableName, "is missing", mendTable}

// CheckTable compares the table without its elements with this version's: it
// returns nil when nothing is missing or changed, a *CheckError that names each
// difference otherwise.
func (r *Ruleset) CheckTable() error {
	var found *CheckError
	err := retry(func() error {
		found = &CheckError{}
		start, err := r.look(newMessage(unix.NFT_MSG_GETTABLE, 0, "look up table", tableName))
		if err != nil {
			return err
		}
		if start.replies[0].missing() {
			found.Problems = append(found.Problems, missingTable)
		} else if err := r.checkTable(found); err != nil {
			return err
		}
		return r.unchanged(start.generation)
	})
	if err != nil {
		return fmt.Errorf("check table inet %s: %w", TableName, err)
	}
	if len(found.Problems) > 0 {
		return found
	}
	return nil
}
