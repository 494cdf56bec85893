// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/hex"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below exist in the eBPF library, which asks the kernel a dozen more
// questions (fdinfo, instructions, what the kernel can report). They are on the
// path of each ADD.

// progInfo is what identifies a program.
type progInfo struct {
	id       uint32
	kind     uint32 // BPF_PROG_TYPE_*
	name     string
	tag      string
	loadTime uint64 // ns since boot
	maps     []uint32
}

// mapInfo is what identifies a map and its layout.
type mapInfo struct {
	id                                    uint32
	kind                                  uint32 // BPF_MAP_TYPE_*
	keySize, valueSize, maxEntries, flags uint32
	name                                  string
}

// rawProgInfo begins as struct bpf_prog_info of include/uapi/linux/bpf.h.
type rawProgInfo struct {
	kind, id               uint32
	tag                    [8]byte
	jitedLen, xlatedLen    uint32
	jited, xlated          uint64
	loadTime               uint64
	createdByUID, nrMapIDs uint32
	mapIDs                 *uint32
	name                   [unix.BPF_OBJ_NAME_LEN]byte
}

// rawMapInfo begins as struct bpf_map_info of include/uapi/linux/bpf.h.
type rawMapInfo struct {
	kind, id, keySize, valueSize, maxEntries, flags uint32
	name                                            [unix.BPF_OBJ_NAME_LEN]byte
}

// maxProgMaps is more than any program of ours uses, its .rodata included.
const maxProgMaps = 16

func getProgInfo(fd int) (*progInfo, error) {
	ids := make([]uint32, maxProgMaps)
	raw := rawProgInfo{nrMapIDs: maxProgMaps, mapIDs: &ids[0]}
	err := objInfo(fd, unsafe.Pointer(&raw), unsafe.Sizeof(raw))
	runtime.KeepAlive(ids)
	if err != nil {
		return nil, fmt.Errorf("get program info: %w", err)
	}
	return &progInfo{
		id: raw.id, kind: raw.kind, name: unix.ByteSliceToString(raw.name[:]),
		tag: hex.EncodeToString(raw.tag[:]), loadTime: raw.loadTime,
		maps: ids[:min(raw.nrMapIDs, maxProgMaps)],
	}, nil
}

func getMapInfo(fd int) (*mapInfo, error) {
	var raw rawMapInfo
	if err := objInfo(fd, unsafe.Pointer(&raw), unsafe.Sizeof(raw)); err != nil {
		return nil, fmt.Errorf("get map info: %w", err)
	}
	return &mapInfo{
		id: raw.id, kind: raw.kind, keySize: raw.keySize, valueSize: raw.valueSize,
		maxEntries: raw.maxEntries, flags: raw.flags, name: unix.ByteSliceToString(raw.name[:]),
	}, nil
}

func objInfo(fd int, info unsafe.Pointer, size uintptr) error {
	attr := struct {
		fd, size uint32
		info     unsafe.Pointer
	}{uint32(fd), uint32(size), info}
	_, err := bpfCall(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// objGet opens what is pinned at a path.
func objGet(path string) (int, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, fmt.Errorf("open pin %q: %w", path, err)
	}
	attr := struct {
		path      *byte
		fd, flags uint32
	}{path: name}
	fd, err := bpfCall(unix.BPF_OBJ_GET, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(name)
	if err != nil {
		return -1, fmt.Errorf("open pin %s: %w", path, err)
	}
	return fd, nil
}

func progByID(id uint32) (int, error) { return byID(unix.BPF_PROG_GET_FD_BY_ID, id) }

func mapByID(id uint32) (int, error) { return byID(unix.BPF_MAP_GET_FD_BY_ID, id) }

func byID(cmd int, id uint32) (int, error) {
	attr := struct{ id, next, flags uint32 }{id: id}
	return bpfCall(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

func bpfCall(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
