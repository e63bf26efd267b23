"""Starting the master: in the foreground, or as a daemon whose starter waits until it serves.

The background way is a fresh interpreter that detaches (python-daemon) and answers over a
readiness pipe: its starter exits 0 only when the service serves, and otherwise says why
when nothing of it is left, which the end of the pipe proves.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import daemon

from procd import logs
from procd.config.schema import Config
from procd.errors import ProcdError, StartFailed
from procd.logger import target
from procd.logger.target import Target
from procd.service import unit

UMASK = 0o027
DESCRIPTORS_MAX = 1 << 20  # max_conn is at most a million


def repair_streams() -> None:
    """Open /dev/null in the place of closed standard streams: the next fd would become one."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is this one.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(fd, True)


def raise_descriptors() -> None:
    """Let this process and its forks open as many files as the hard limit says, in reason.

    The usual soft limit of 1,024 is for programs that use select(2) on them; max_conn is more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some containers have no limit, and some programs close every descriptor up to it.
    enough = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < enough:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def open_log(path: Path) -> int:
    """Return the log file, opened to append; raises StartFailed."""
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            path.parent.chmod(0o711)  # often run_dir: the processes' user passes through
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StartFailed(f"cannot open the log {path}: {error.strerror} (log_file)") from None


def targets(config: Config, file: int | None) -> list[Target]:
    """Return where the log is written: stderr or journald, and *file* (2 where that is stderr)."""
    environ, form, path = os.environ, config.log_format, config.log_file
    if path is not None:  # a release that is switched behind a link does not take the log along
        path = Path(os.path.realpath(path.parent), path.name)
    if form == "auto":
        form = "text"
        if config.log_file is None and target.is_journal(2, environ):
            form = "journal"
    found: list[Target] = []
    if form == "journal":
        form = "text"
        journal = target.journal_socket()
        if journal is not None:
            found.append(Target(journal, "journal", identifier=unit.name_of(config)))
    if file is not None:
        found.append(Target(file, form, path=path))
    if not any(each.fd == 2 or each.format == "journal" for each in found):
        found.append(Target(2, form, colour=target.is_coloured(2, environ)))
    return found


def run_foreground(config: Config, overrides: Sequence[str], *, single: bool = False) -> int:
    """Be the master until it is told to stop; the log goes to stderr and the log file.

    *single*: the processes have the terminal for a debugger, and it is put right afterwards.
    """
    repair_streams()
    if single:
        with terminal_kept():
            return _run_foreground(config, overrides, captures=False)
    return _run_foreground(config, overrides, captures=True)


@contextmanager
def terminal_kept() -> Iterator[None]:
    """Leave the terminal as it was: who is killed at a prompt of readline leaves it mute."""
    try:
        before = termios.tcgetattr(0)
    except termios.error:  # no terminal
        yield
        return
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def _run_foreground(config: Config, overrides: Sequence[str], *, captures: bool) -> int:
    os.umask(UMASK)
    file = None if config.log_file is None else open_log(config.log_file)
    logs.setup(targets(config, file), config.log_level, captures=captures)
    logs.name_process("master")
    failure: list[str] = []
    status = _run(config, overrides, lambda why: failure.append(why) if why else None)
    if failure:
        raise StartFailed(failure[0])
    return status


def run_daemon(config: Config, overrides: Sequence[str], ready_fd: int) -> int:
    """Detach, be the master, and tell on *ready_fd* how the start went."""
    pipe = os.fdopen(ready_fd, "w", encoding="utf-8")
    os.set_inheritable(ready_fd, False)

    def ready(why: str | None, exit_status: int = 1) -> None:
        try:
            json.dump({"pid": os.getpid(), "error": why, "exit": exit_status}, pipe)
            pipe.write("\n")
            pipe.flush()
            if why is None:
                pipe.close()
        except OSError:
            pass  # whoever started us has gone

    try:
        # A daemon that kept its starter's stderr would keep the starter's readers waiting.
        log = open_log(config.log_file or Path(os.devnull))
        with open(log, "a", encoding="utf-8", closefd=False) as stream:
            context = daemon.DaemonContext(
                detach_process=True,
                umask=UMASK,
                working_directory=str(config.chdir),
                prevent_core=False,
                initgroups=True,
                signal_map={},
                files_preserve=[pipe, log],
                stdout=stream,
                stderr=stream,
            )
            context.open()
        os.close(log)  # stderr is the log from here on
        logs.setup(targets(config, None if config.log_file is None else 2), config.log_level)
        logs.name_process("master")
        return _run(config, overrides, ready)
    except ProcdError as error:
        ready(str(error), error.exit_status)
        return error.exit_status


def _run(config: Config, overrides: Sequence[str], ready: Callable[[str | None], None]) -> int:
    from procd.master.master import Master

    raise_descriptors()
    return Master(config, overrides, ready).run()


def start_daemon(config: Config, overrides: Sequence[str]) -> int:
    """Start the service in the background; return its pid once it serves.

    Raises StartFailed (or what the start raised) when nothing of it is left.
    """
    repair_streams()
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "procd", "-c", str(config.path), "start"]
    for override in overrides:
        command += ["-s", override]
    subprocess.run(  # noqa: S603 - ourselves
        [*command, "--ready-fd", str(writer)], pass_fds=[writer], check=False
    )
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        line = pipe.readline()
        try:
            told = json.loads(line)
        except ValueError:
            told = {"error": f"it ended before it served; see {config.log_file or 'stderr'}"}
        if told.get("error") is None:
            return int(told["pid"])
        pipe.read()  # until the master is gone
    error = StartFailed(str(told["error"]))
    error.exit_status = int(told.get("exit", 1))
    raise error
