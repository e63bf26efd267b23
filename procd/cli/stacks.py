"""procd stacks: where every process stands, in Python."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import time
from contextlib import suppress
from pathlib import Path

import click

from procd.cli.client import NoAnswer, Service
from procd.cli.root import config_path
from procd.errors import ProcdError, UsageError
from procd.linux import process
from procd.spawn import stacks as answering

STATUS_SECONDS = 2.0
ANSWER_SECONDS = 2.0  # for one process
STILL_SECONDS = 0.03  # nothing more was written: that was all
STEP_SECONDS = 0.005


@click.command()
@click.argument("id", required=False, type=int, metavar="[ID]")
@click.pass_context
def stacks(ctx: click.Context, id: int | None) -> None:
    """Print the Python stack of every process, or of the one with this ID (or pid).

    Also of one that is stuck in C code. Each stack begins with the call that runs. Exit status 1
    if a process does not answer.
    """
    service = Service(config_path(ctx))
    folder = service.run_dir / "ipc"
    names = _names(service)
    wanted = {pid: name for pid, (number, name) in names.items() if id in (None, number, pid)}
    if not wanted:
        raise UsageError(f"no process of {service.config_path} has the id or pid {id}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ProcdError(f"{folder} is for root and the service's own user")
    silent = 0
    for pid, name in wanted.items():
        click.echo(name)
        try:
            text = _stack(folder, pid)
        except ProcdError as error:
            silent += 1
            text = str(error)
        click.echo("".join(f"  {line}\n" for line in text.splitlines()))
    ctx.exit(int(silent > 0))


def _names(service: Service) -> dict[int, tuple[int | None, str]]:
    """Return id and title of each process, by pid; the master's too."""
    named: dict[int, tuple[int | None, str]] = {}
    try:
        page = service.ask({"command": "status"}, STATUS_SECONDS).get("status")
        for one in page["processes"] if isinstance(page, dict) else ():
            title = " ".join(str(word) for word in (one["role"], one.get("id")) if word is not None)
            if one["pid"] is not None:
                line = f"{title}  pid {one['pid']}  generation {one['generation']}  {one['state']}"
                named[one["pid"]] = (one.get("id"), line)
        master = f"master  pid {service.pid}"
    except (NoAnswer, TimeoutError):  # just then they are wanted
        named = {pid: (None, f"pid {pid}") for pid in process.children(service.pid)}
        master = f"master  pid {service.pid}  does not answer"
    return {service.pid: (None, master)} | named


def _stack(folder: Path, pid: int) -> str:
    """Have *pid* write its stacks, and return them; raises ProcdError if it does not."""
    if not process.catches(pid, answering.SIGNAL):
        raise ProcdError(f"is not ready to tell: {process.standing(pid)}")
    path = answering.path_of(folder, pid)
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ProcdError(f"cannot read {path}: {error.strerror}") from None
    with os.fdopen(fd, "r+b", buffering=0) as file:
        found = os.fstat(fd)
        # The workers' own folder: root must not be made to empty somebody else's file.
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise ProcdError(f"{path} is not a file of ours")
        fcntl.flock(file, fcntl.LOCK_EX)  # one asks at a time
        file.truncate(0)
        try:
            os.kill(pid, answering.SIGNAL)
        except OSError as error:
            raise ProcdError(f"cannot be asked: {error.strerror}") from None
        size = _wait_written(file.fileno())
        if not size:
            raise ProcdError(f"does not answer: {process.standing(pid)}")
        text = os.pread(file.fileno(), size, 0).decode(errors="replace")
        with suppress(OSError):
            file.truncate(0)
    return text


def _wait_written(fd: int) -> int:
    """Return how much was written, once that is all; 0 if nothing was in time."""
    size, since = 0, time.monotonic()
    while True:
        select.select([], [], [], STEP_SECONDS)
        now, found = time.monotonic(), os.fstat(fd).st_size
        if found != size:
            size, since = found, now
        elif now - since > (STILL_SECONDS if size else ANSWER_SECONDS):
            return size
