"""What Linux tells about a process, and what a process can ask Linux to do to itself.

Rules:
- Thin bindings: nothing here knows what a worker or a master is.
- A pid alone names nobody, because pids are used again: it is a pid with its start time.
- "Gone" and "not permitted to look" are answers (None), never exceptions: processes vanish
  between any two calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import grp
import os
import pwd
import signal
from collections.abc import Collection

from procd.errors import ProcdError

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_M_MMAP_THRESHOLD = -3  # <malloc.h>
_LARGE_BYTES = 128 * 1024  # glibc's own first threshold, which setting it makes the last

_STATE, _START_TIME = 0, 19  # proc(5): fields 3 and 22, counted from behind the comm
_DEAD = (b"Z", b"X")
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")

_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Make orphaned descendants this process's children: prctl(2), PR_SET_CHILD_SUBREAPER.

    Not inherited over fork; kept over exec.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))


def die_with_parent() -> None:
    """Have the kernel SIGKILL this process when its parent ends: PR_SET_PDEATHSIG.

    A change of uid or gid clears it, so it comes after drop_privileges(); and the parent may
    have died just before the call, so os.getppid() is checked after it. "Parent" is the thread
    that forked. SIGKILL, because nothing milder ends a process inside a long C call.
    """
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))


def set_name(name: str) -> None:
    """Name this process in `top` and `ps -o comm`; the kernel keeps the first 15 bytes."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(os.fsencode(name)))


def give_large_memory_back() -> None:
    """Have large memory come from the kernel for itself, and go back whole: mallopt(3).

    Else glibc, once it has freed some, takes up to 32 MiB at a time from its heap: there, what
    grows is copied, and what is free stays with the process. Other C libraries have no such call.
    """
    with contextlib.suppress(AttributeError):
        _libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def start_time(pid: int) -> int | None:
    """When *pid* started, in clock ticks since boot: with the pid, a process's only true name.

    None when there is no such process. A zombie still has one: see is_alive().
    """
    stat = _stat_fields(pid)
    return int(stat[_START_TIME]) if stat else None


def is_alive(pid: int, start: int | None) -> bool:
    """Whether *pid* runs and is the process that started at *start* (None: whoever it is).

    A zombie is dead: it runs nothing and holds nothing.
    """
    stat = _stat_fields(pid)
    if stat is None or stat[_STATE] in _DEAD:
        return False
    return start is None or int(stat[_START_TIME]) == start


def owner(pid: int) -> int | None:
    """The effective uid of *pid*; None when there is no such process."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def identity(user: str | None, group: str | None) -> tuple[int, int]:
    """Return the uid and gid that drop_privileges() gives a process; raises ProcdError."""
    account = _account(user) if user is not None else None
    uid = os.geteuid() if account is None else account.pw_uid
    gid = _gid(group) if group is not None else account.pw_gid if account else os.getegid()
    return uid, gid


def drop_privileges(user: str | None, group: str | None) -> None:
    """Become *user* and *group* (names, or ids in digits) for good, with that user's groups.

    Without *group* it is the user's own; with *group* alone the user stays and other groups go.
    Nothing happens if this process already is who it should be, so that a service started as
    its own user needs no rights. Raises ProcdError if the name is unknown, the rights are
    missing, or the way back is still open.
    """
    if user is None and group is None:
        return
    uid, gid = identity(user, group)
    if os.getresuid() == (uid,) * 3 and os.getresgid() == (gid,) * 3:
        return
    try:
        # Groups first: without uid 0 they can no longer be changed.
        account = _account(user) if user is not None else None
        if account is not None and account.pw_name:
            os.initgroups(account.pw_name, gid)
        else:
            os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except PermissionError:
        raise ProcdError(
            f"cannot become user {user or uid!r}, group {group or gid!r}: this process runs as uid"
            f" {os.geteuid()} without the right to change (CAP_SETUID, CAP_SETGID); start procd"
            " as root, or take `user` and `group` out of the config"
        ) from None
    _check_no_way_back(uid, gid, user)


def own_rss() -> int:
    """Resident bytes of this process."""
    with open("/proc/self/statm", "rb", buffering=0) as statm:
        return int(statm.read(128).split()[1]) * _PAGE_BYTES


def own_pss() -> int:
    """Proportional bytes of this process; milliseconds for a gigabyte. Its RSS, if not told."""
    try:
        with open("/proc/self/smaps_rollup", "rb") as rollup:
            line = next(line for line in rollup if line.startswith(b"Pss:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):  # a kernel before 4.14
        return own_rss()


def memory(pid: int) -> tuple[int | None, int | None]:
    """Resident and proportional bytes of *pid*: (rss, pss), None for what cannot be known.

    PSS needs the right to look into the process (ptrace(2), "access mode checking"): a master
    without CAP_SYS_PTRACE cannot read it of a child that changed its user. RSS everybody can.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:
            sizes = {line.split()[0]: line.split()[1] for line in rollup if b" kB" in line}
        return int(sizes[b"Rss:"]) * 1024, int(sizes[b"Pss:"]) * 1024
    except (OSError, KeyError):
        pass  # not permitted, gone, or a zombie, which has no memory map
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            resident = int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return None, None
    return resident or None, None  # 0 is a zombie or a kernel thread


def holders(st_dev: int, st_ino: int) -> list[int]:
    """The pids that have this file open, ascending, by /proc/*/fd; without those it may not see."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
    return sorted(pid for pid in pids if _has_open(pid, st_dev, st_ino))


def catches(pid: int, signum: int) -> bool:
    """Whether *pid* has a handler for that signal; its default might end the process."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            line = next(line for line in status if line.startswith(b"SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(line.split()[1], 16) >> (signum - 1) & 1)


def standing(pid: int) -> str:
    """What the kernel says that *pid* does, for a person: its state, and where it waits."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            state = next(line for line in status if line.startswith("State:"))[6:].strip()
        with open(f"/proc/{pid}/wchan", encoding="ascii") as wchan:
            where = wchan.read()
    except (OSError, StopIteration):
        return "it is gone"
    return f"state {state}" + (f", in {where}" if where not in ("", "0") else "")


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, zombies too."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            fields = _stat_fields(int(name))
            if fields is not None and int(fields[1]) == pid:
                found.append(int(name))
    return found


def own_children() -> list[int]:
    """Return the pids of this process's children, as children() does, without a look at all pids.

    One may be missed while others end: proc(5), /proc/pid/task/tid/children.
    """
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as pids:
            return [int(pid) for pid in pids.read().split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        return children(os.getpid())


def command(pid: int) -> str:
    """Return the command line of *pid*, "" if it is gone. Waits for who holds its memory map."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
            return cmdline.read(4096).replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def close_fds_except(keep: Collection[int]) -> None:
    """Close every fd that is not in *keep*, 0, 1 and 2 included; for a freshly forked child.

    Closes below Python's feet: file and socket objects of the parent still hold the numbers,
    so the child leaves by os._exit or keeps those objects referenced.
    """
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) not in keep:
            # EBADF: the fd that listed the folder, closed by now.
            with contextlib.suppress(OSError):
                os.close(int(entry))


def _prctl(option: int, value: ctypes.c_ulong | ctypes.c_char_p) -> None:
    nothing = ctypes.c_ulong(0)
    if _libc.prctl(option, value, nothing, nothing, nothing) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def _stat_fields(pid: int) -> list[bytes] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            line = stat.read()
    except (FileNotFoundError, ProcessLookupError):  # ESRCH: it went between open and read
        return None
    # The comm stands in parentheses and may itself hold spaces and parentheses.
    return line[line.rindex(b")") + 2 :].split()


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        if not user.isdecimal():
            raise ProcdError(
                f"there is no user {user!r} on this machine: create it, or correct `user`"
            ) from None
    try:
        return pwd.getpwuid(int(user))
    except (KeyError, OverflowError):
        # An id without an account, as containers have: no name, no groups but its own.
        return pwd.struct_passwd(("", "x", int(user), int(user), "", "/", ""))


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group.isdecimal():
            return int(group)
        raise ProcdError(
            f"there is no group {group!r} on this machine: create it, or correct `group`"
        ) from None


def _check_no_way_back(uid: int, gid: int, user: str | None) -> None:
    """Prove that the change holds: a process that can return to root never left it."""
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        raise ProcdError(f"the kernel did not make this process user {user!r} (uid {uid}) for good")
    if uid == 0 or user is None:
        return
    try:
        os.setresuid(0, 0, 0)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EINVAL):  # EINVAL: uid 0 is not in this namespace
            return
        raise
    raise ProcdError(
        f"user {user!r} (uid {uid}) can still become root: CAP_SETUID was kept (ambient"
        " capabilities?); take it away, or take `user` out of the config"
    )


def _has_open(pid: int, st_dev: int, st_ino: int) -> bool:
    try:
        fds = os.listdir(f"/proc/{pid}/fd")
    except OSError:  # gone, or another user's
        return False
    for fd in fds:
        with contextlib.suppress(OSError):  # closed since
            stat = os.stat(f"/proc/{pid}/fd/{fd}")
            if (stat.st_dev, stat.st_ino) == (st_dev, st_ino):
                return True
    return False
