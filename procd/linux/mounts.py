"""Which file systems tell inotify nothing (man 7 inotify, LIMITATIONS; man 5 proc_pid_mountinfo).

What another machine, a hypervisor's host or a layer below changes, this kernel does not see.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

# Network and cluster file systems, those a host shares with its virtual machine, and layers.
_SILENT = frozenset(
    {
        *("9p", "afs", "aufs", "beegfs", "ceph", "cifs", "coda", "drvfs", "fuse", "gfs2", "gpfs"),
        *("lustre", "ncpfs", "ocfs2", "orangefs", "overlay", "prl_fs", "pvfs2", "smb3", "smbfs"),
        *("vboxsf", "virtiofs", "vmhgfs", "wekafs"),
    }
)
_SILENT_PREFIXES = ("fuse.", "nfs")  # nfs, nfs4; a block device's file system on FUSE is "fuseblk"


def first_silent(folders: Iterable[str]) -> tuple[str, str] | None:
    """Return the first of *folders* that is on a silent file system, and its type."""
    types = mounted_types()
    for folder in folders:
        try:
            fstype = types.get(os.stat(folder).st_dev, "")
        except OSError:
            continue
        if is_silent(fstype):
            return folder, fstype
    return None


def is_silent(fstype: str) -> bool:
    """Say whether changes to this type of file system may come without events."""
    return fstype in _SILENT or fstype.startswith(_SILENT_PREFIXES)


def types_by_device(mountinfo: str) -> dict[int, str]:
    """Return file system type by st_dev, from the text of /proc/self/mountinfo."""
    types = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        major, _, minor = before.split(" ")[2].partition(":")
        types[os.makedev(int(major), int(minor))] = after.split(" ")[0]
    return types


def mounted_types() -> dict[int, str]:
    """Return file system type by st_dev, as this process sees its mounts; empty without /proc.

    A device that is missing (a subvolume of btrfs has its own st_dev) is a local one.
    """
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return types_by_device(file.read())
    except OSError:
        return {}
