"""The systemd unit of one config: pure, text from a config and what is known of the machine.

As systemd/procd@.service, which says why each line stands there, but for this config, this
Python and this systemd: the time limits follow the config's, and only the folders that the
config names can be written. A test holds that the two agree.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from procd.config.schema import Config

_HOMES = ("/home", "/root", "/run/user")
_TMPS = ("/tmp", "/var/tmp")  # noqa: S108 - compared with, never written
_LOW_PORT = 1024
_RESERVE = 256  # descriptors that are no connections
# What an older systemd does not know is left out.
_SINCE = {
    "RestrictSUIDSGID": 242,
    "ProtectHostname": 242,
    "OOMPolicy": 243,
    "ProtectKernelLogs": 244,
    "ProtectClock": 245,
    "ProtectProc": 247,
}
# Both kinds of unit can have these; a user's own manager has no right to the rest.
_SANDBOX = """\
NoNewPrivileges=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
# breaks JITs (numba, PyPy, some cffi callbacks): "no" in an override then
MemoryDenyWriteExecute=yes
"""
_SYSTEM_SANDBOX = """\
ProtectSystem=strict
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a unit depends on beside its config."""

    python: Path  # the interpreter that has procd
    systemd: int  # its version
    user: str | None  # that the service runs as; None = a unit of the user's own manager


def name_of(config: Config) -> str:
    """Return what to call the service: as its file, or where that is procd.yaml as its folder.

    A folder `current`, which a release moves, stands in the one that has the service's name.
    """
    folder = Path(os.path.normpath(config.chdir))
    folder = folder.parent if folder.name == "current" else folder
    name = folder.name if config.path.stem == "procd" else config.path.stem
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name) or "procd"


def unit_text(name: str, config: Config, machine: Machine) -> str:
    """Return the text of NAME.service."""
    parts = [_head(name, config, machine), _service(name, config, machine)]
    parts.append("# ---- sandbox\n\n" + _sandbox(config, machine))
    target = "default.target" if machine.user is None else "multi-user.target"
    parts.append(f"[Install]\nWantedBy={target}\n")
    return "\n".join(_known(part, machine.systemd) for part in parts)


def _known(text: str, version: int) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if _SINCE.get(line.partition("=")[0], 0) <= version)


def _head(name: str, config: Config, machine: Machine) -> str:
    start = "Written by `procd systemd`"
    sockets = [listen.name for listen in config.listen if listen.scheme == "systemd"]
    lines = [f"# {start} for {config.path} and systemd {machine.systemd}.", ""]
    for socket in sockets:
        lines.insert(1, f"# systemd://{socket}: a .socket unit with FileDescriptorName={socket}")
        lines.insert(2, f"# and Service={name}.service; see systemd/procd@.socket.")
    lines += ["[Unit]", f"Description=procd application server ({_percent(name)})"]
    if machine.user is not None:
        lines.append("After=network.target")
    lines.append(f"AssertFileNotEmpty={_percent(str(config.path))}")
    lines += ["StartLimitIntervalSec=60", "StartLimitBurst=5", ""]
    return "\n".join(lines)


def _service(name: str, config: Config, machine: Machine) -> str:
    procd = " ".join(_word(word) for word in (machine.python, "-m", "procd", "-c", config.path))
    lines = [
        "[Service]",
        "# READY=1 comes when the first generation serves",
        "Type=notify",
        "NotifyAccess=main",
        *_folders(config, machine),
        f"ExecStart={procd} start --foreground",
        "# blocks until the new generation serves; non-zero: refused, the old one still runs",
        f"ExecReload={procd} reload",
        "KillMode=mixed",
        "# twice boot_timeout: a reload may wait for the one before it; more than max_wait_time",
        f"TimeoutStartSec={2 * config.boot_timeout + 30:g}",
        f"TimeoutStopSec={config.max_wait_time + 15:g}",
        "# the master's loop stands still: ended, with its Python stack in the journal",
        "WatchdogSec=30",
        "Restart=on-failure",
        "RestartSec=1",
        "RestartPreventExitStatus=2",
        "OOMPolicy=continue",
        *_account(config, machine),
        "UMask=0027",
        "Environment=PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1",
        "# a release goes live by `systemctl reload`; systemd has the pid, the journal the log",
        "Environment=PROCD_WATCH_FILE=false PROCD_MASTER_PID_FILE=null PROCD_LOG_FILE=null",
        "# listening sockets outlive a killed master and a restart; systemd < 254 does not say so",
        "FileDescriptorStoreMax=64",
        "Environment=FDSTORE=64",
        f"SyslogIdentifier={_percent(name)}",
        f"LimitNOFILE={max(65536, config.max_conn + _RESERVE)}",
        "TasksMax=4096",
    ]
    return "\n".join(lines) + "\n"


def _account(config: Config, machine: Machine) -> Iterator[str]:
    if machine.user is None:
        return
    yield f"User={_percent(machine.user)}"
    if config.group is not None:
        yield f"Group={_percent(config.group)}"
    yield '# "yes" (or DynamicUser=) would delete the message queue at every stop and restart'
    yield "RemoveIPC=no"
    yield "# where a master that is not root leaves the record by which ExecReload= finds it"
    yield f"Environment={_word(f'XDG_RUNTIME_DIR={config.run_dir}')}"


def _folders(config: Config, machine: Machine) -> Iterator[str]:
    """Have run_dir and state_dir there and written: systemd's own below /run and /var/lib."""
    for path, base, what, mode in (
        (config.run_dir, Path("/run"), "Runtime", "0711"),
        (config.state_dir, Path("/var/lib"), "State", "0700"),
    ):
        if machine.user is not None and path != base and path.is_relative_to(base):
            yield f"{what}Directory={_word(path.relative_to(base))}"
            yield f"{what}DirectoryMode={mode}"
            if what == "Runtime":
                yield "RuntimeDirectoryPreserve=restart"
        elif machine.user is not None:
            # "+": as root and outside of the sandbox, which could not make them.
            yield f"ExecStartPre=+/usr/bin/install -d -m {mode} -o {machine.user} {_word(path)}"


def _sandbox(config: Config, machine: Machine) -> str:
    if machine.user is None:
        return _SANDBOX
    low = any(listen.scheme == "tcp" and 0 < listen.port < _LOW_PORT for listen in config.listen)
    capability = "CAP_NET_BIND_SERVICE" if low else ""
    # A virtual environment's Python is a link to one that may stand in somebody's home.
    read = (machine.python, machine.python.resolve(), config.path, config.chdir, Path(__file__))
    written = [config.run_dir, config.state_dir]
    written += [Path(one.path).parent for one in config.listen if one.scheme == "unix"]
    if config.worker_pid_file is not None:
        written.append(config.worker_pid_file.parent)
    lines = [
        f"CapabilityBoundingSet={capability}",
        f"AmbientCapabilities={capability}",
        f"ProtectHome={'read-only' if _are_below((*read, *written), _HOMES) else 'yes'}",
        f"PrivateTmp={'no' if _are_below((*read, *written), _TMPS) else 'yes'}",
        "# and what the app itself writes: `systemctl edit`",
        "ReadWritePaths=" + " ".join(_word(f"-{path}") for path in dict.fromkeys(written)),
    ]
    return "\n".join(lines) + "\n" + _SYSTEM_SANDBOX + _SANDBOX


def _are_below(paths: tuple[Path, ...], folders: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(folder) for path in paths for folder in folders)


def _word(value: object) -> str:
    """Write one word of a command or list, as systemd reads it back."""
    text = _percent(str(value)).replace("$", "$$")
    if re.search(r"[\s\"'\\;]", text) is None:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _percent(text: str) -> str:
    return text.replace("%", "%%")
