"""Facts in, findings out; pure. Each finding is one sentence, and its cure a command or a key.

It *hurts* what keeps the service from starting, loses work, or stops a promise from being kept;
what one should know is a *note*; what was looked at and is in order is *ok*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from procd.config.schema import Config
from procd.doctor.facts import Facts, Left, Place, Queues, Unit
from procd.linux.mounts import is_silent

Level = Literal["hurts", "note", "ok"]
LEVELS: tuple[Level, ...] = ("hurts", "note", "ok")

TOKEN_BYTES = 8  # one task in the queue
RESERVE = 256  # descriptors of a worker that are no connections
ROOM_FACTOR = 2  # a limit that is more than half used is worth a word
_NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "gluster", "lustre", "afs", "fuse.sshfs")


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    about: str
    what: str
    cure: str = ""


def findings(facts: Facts) -> list[Finding]:
    """Return all of them, what hurts first."""
    found = [
        *_of_config(facts),
        *_of_accounts(facts),
        *(_of_queues(facts.queues, facts.config, runs=facts.master_pid is not None)),
        *_of_remove_ipc(facts),
        *_of_watch(facts),
        *_of_descriptors(facts),
        *(finding for place in facts.places for finding in _of_place(place, facts.config)),
        *(_of_left(left) for left in facts.left),
        *_of_versions(facts),
        *(_of_unit(facts.unit, facts.config) if facts.unit else ()),
    ]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _of_config(facts: Facts) -> Iterator[Finding]:
    if facts.config_error is not None:
        more = "" if facts.config else " (what depends on it was not looked at)"
        cure = "correct the line and run `procd check`"
        yield Finding("hurts", "config", facts.config_error + more, cure)
    elif facts.config is None:
        what = "no config here: only the machine was looked at"
        yield Finding("note", "config", what, "procd init, or name one with -c FILE")
    else:
        runs = f"; pid {facts.master_pid} runs" if facts.master_pid else "; not running"
        yield Finding("ok", "config", f"{facts.config.path}{runs}")


def _of_accounts(facts: Facts) -> Iterator[Finding]:
    config, workers = facts.config, facts.workers
    if config is not None and workers is None:
        what = f"user: this machine has no account {config.user!r}"
        yield Finding("hurts", "accounts", what, f"useradd --system {config.user}")
    elif (
        config is not None and config.user and facts.master.uid not in (0, workers and workers.uid)
    ):
        what = f"user: {facts.master.name} cannot become {config.user}: only root can"
        yield Finding("hurts", "accounts", what, "start procd as root, or set `user: null`")
    elif workers is not None and workers.uid == 0:
        what = "workers run the app as root: a fault in it owns the machine"
        yield Finding("note", "accounts", what, "set `user` in the config, or User= in the unit")
    elif workers is not None:
        yield Finding("ok", "accounts", f"workers run as {workers.name} (uid {workers.uid})")


def _of_queues(queues: Queues | None, config: Config | None, *, runs: bool) -> Iterator[Finding]:
    about = "queues"
    if queues is None:
        what = "System V message queues are not there: /proc/sys/kernel/msgmnb cannot be read"
        yield Finding("hurts", about, what, "a kernel with CONFIG_SYSVIPC, and /proc mounted")
        return
    if queues.msgmax < TOKEN_BYTES or queues.msgmnb < TOKEN_BYTES:
        what = f"not even one task's {TOKEN_BYTES} bytes fit: msgmax {queues.msgmax}"
        yield Finding("hurts", about, what, "sysctl -w kernel.msgmax=8192 kernel.msgmnb=16384")
        return
    if queues.count >= queues.msgmni and not runs:
        what = f"all {queues.msgmni} message queues of the machine are taken: a start fails"
        yield Finding("hurts", about, what, "procd queue ls; sysctl -w kernel.msgmni=32000")
    elif queues.count * ROOM_FACTOR > queues.msgmni:
        what = f"{queues.count} of {queues.msgmni} message queues of the machine are taken"
        yield Finding("note", about, what, "procd queue ls tells whose they are")
    fits = queues.msgmnb // TOKEN_BYTES
    if config is not None and config.task_slots > fits:
        what = (
            f"{fits:,} tasks fit into the queue, and {config.task_slots:,} into the arena: "
            "the rest wait in the worker that sent them, which costs a little speed"
        )
        size = config.task_slots * TOKEN_BYTES
        yield Finding("note", about, what, f"sysctl -w kernel.msgmnb={size}")
    else:
        yield Finding("ok", about, f"msgmnb {queues.msgmnb:,}, {queues.count} queues exist")


def _of_remove_ipc(facts: Facts) -> Iterator[Finding]:
    workers = facts.workers
    if facts.removes_ipc is None or workers is None or workers.is_system:
        return
    what = (
        f"logind removes the message queues of {workers.name} when it logs out (RemoveIPC=yes, "
        f"{facts.removes_ipc})"
    )
    cure = "RemoveIPC=no there, or a system user (uid below 1000) for `user`"
    if facts.config is not None and facts.config.message_queue_key is not None:
        yield Finding("hurts", "queues", f"{what}: what foreign programs sent is lost", cure)
    else:
        yield Finding("note", "queues", f"{what}: procd makes its own anew", cure)


def _of_watch(facts: Facts) -> Iterator[Finding]:
    inotify, config = facts.inotify, facts.config
    if inotify is None or config is None or not config.watch_file or config.watch_poll is True:
        return
    folders, limit = inotify.folders, inotify.watches_max
    raise_watches = f"sysctl -w fs.inotify.max_user_watches={max(65536, 4 * folders)}"
    if folders > limit:
        what = f"{folders:,} folders hold sources and {limit:,} can be watched: procd polls"
        yield Finding("note", "watch", what, raise_watches)
    elif folders * ROOM_FACTOR > limit:
        what = f"{folders:,} of {limit:,} inotify watches of the user are needed"
        yield Finding("note", "watch", what, raise_watches)
    elif inotify.instances >= inotify.instances_max and facts.master_pid is None:
        what = f"all {inotify.instances_max} inotify instances of the user are taken: procd polls"
        yield Finding("note", "watch", what, "sysctl -w fs.inotify.max_user_instances=1024")
    else:
        yield Finding("ok", "watch", f"{folders:,} folders of sources, {limit:,} watches")


def _of_descriptors(facts: Facts) -> Iterator[Finding]:
    if facts.config is None:
        return
    have, need = facts.descriptors_max, facts.config.max_conn + RESERVE
    cure = f"LimitNOFILE={need} in the unit (ulimit -Hn {need}), or a lower max_conn"
    if "nofile" in facts.config.rlimits:
        limit = facts.config.rlimits["nofile"]
        have, cure = need if limit is None else limit, f"rlimits: {{nofile: {need}}}"
    if have < need:
        what = f"max_conn is {facts.config.max_conn:,}, and a process may open {have:,} files"
        yield Finding("hurts", "descriptors", what, cure)
    else:
        yield Finding("ok", "descriptors", f"{have:,} for max_conn {facts.config.max_conn:,}")


def _of_place(place: Place, config: Config | None) -> Iterator[Finding]:
    about = place.key
    if place.problem is not None:
        yield Finding("hurts", about, place.problem, f"chown or chmod {place.path}")
        return
    if config is None:
        return
    if place.key == "chdir":
        yield from _of_source(place, config)
        return
    is_network = place.fstype.startswith(_NETWORK)
    if is_network and place.key in ("run_dir", "state_dir"):
        what = f"{place.path} is on {place.fstype}: locks and sockets do not work there as here"
        yield Finding("hurts", about, what, f"a local folder for {place.key}")
    elif place.key == "state_dir" and place.fstype in ("tmpfs", "ramfs", "overlay"):
        lost = "the container" if place.fstype == "overlay" else "a reboot"
        what = f"{place.path} is on {place.fstype}: kept tasks do not outlive {lost}"
        yield Finding("note", about, what, "state_dir on a disk (a volume)")
    else:
        yield from _of_space(place, config)


def _of_source(place: Place, config: Config) -> Iterator[Finding]:
    if not (config.watch_file and is_silent(place.fstype)):
        yield Finding("ok", place.key, f"{place.path} is read by the workers")
    elif config.watch_poll is False:
        what = f"{place.path} is on {place.fstype}, where a save may not be noticed"
        yield Finding("hurts", place.key, what, "watch_poll: auto")
    else:
        what = f"{place.path} is on {place.fstype}: saves are found by polling, a little later"
        yield Finding("note", place.key, what, "nothing, or sources on a local file system")


def _of_space(place: Place, config: Config) -> Iterator[Finding]:
    need = config.task_slots * config.task_slot_bytes if place.key == "state_dir" else 1 << 20
    if place.free_bytes < need:
        what = f"{place.path} has {place.free_bytes >> 20} MB left and needs {need >> 20} MB"
        cure = "make room, or a smaller task_slots"
        yield Finding("hurts", place.key, what, cure)
    else:
        yield Finding("ok", place.key, f"{place.path} can be written")


def _of_left(left: Left) -> Finding:
    config = left.config_path
    match left.kind:
        case "queue":
            what = f"queue {left.where} is of a procd that was killed ({config})"
            cure = f"procd -c {config} start clears it, or procd queue rm {left.where}"
        case "arena":
            what = f"{left.where} may hold tasks that wait for a start"
            cure = "procd start runs them"
        case "damaged":
            what = f"{left.where} is a task arena that could not be trusted"
            cure = "look at it, then remove it"
        case _:
            what = f"{left.where} is the record of a procd that was killed ({config})"
            cure = f"procd -c {config} start replaces it, or rm {left.where}"
    return Finding("note", "left", what, cure)


def _of_versions(facts: Facts) -> Iterator[Finding]:
    for version in facts.versions:
        if version.is_enough:
            continue
        have = "is not installed" if version.found is None else f"is {version.found}"
        cure = "pip install --upgrade procd-server"
        if version.name in ("Python", "Linux"):
            cure = f"a newer {version.name}"
        what = f"{version.name} {have}, and procd needs {version.needed}"
        yield Finding("hurts", "versions", what, cure)
    good = [f"{v.name} {v.found}" for v in facts.versions if v.is_enough]
    if good:
        yield Finding("ok", "versions", ", ".join(good))
    if not facts.has_uvloop:
        what = "uvloop is not installed: workers run on asyncio's own, slower loop"
        yield Finding("note", "versions", what, "pip install 'procd-server[uvloop]'")


def _of_unit(unit: Unit, config: Config | None) -> Iterator[Finding]:
    said, edit = unit.properties, f"systemctl edit {unit.name}"
    before = "unit"
    if said.get("RemoveIPC") == "yes":
        what = f"{unit.name} has RemoveIPC=yes: each restart deletes the message queue"
        yield Finding("hurts", before, what, f"{edit}: RemoveIPC=no")
    stop = _seconds(said.get("TimeoutStopUSec", ""))
    if config is not None and stop is not None and stop <= config.max_wait_time:
        what = (
            f"{unit.name} has TimeoutStopSec={stop:g}: systemd kills what max_wait_time "
            f"({config.max_wait_time:g}) gives time to"
        )
        cure = f"{edit}: TimeoutStopSec={config.max_wait_time + 15:g}"
        yield Finding("hurts", before, what, cure)
    if said.get("Restart") == "no":
        what = f"{unit.name} has Restart=no: a killed master stays down"
        yield Finding("note", before, what, f"{edit}: Restart=on-failure")
    if said.get("Type") not in ("notify", "notify-reload", None):
        what = f"{unit.name} has Type={said['Type']}: systemd does not learn when it serves"
        yield Finding("hurts", before, what, f"{edit}: Type=notify")


def _seconds(text: str) -> float | None:
    """Return what `systemctl show` says of a span, as 1min 30s; None for infinity and nonsense."""
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    total, words = 0.0, text.split()
    for word in words:
        number = word.rstrip("abcdefghijklmnopqrstuvwxyz")
        unit = word[len(number) :]
        try:
            total += float(number) * units[unit]
        except (ValueError, KeyError):
            return None
    return total if words else None
