"""procd logs: the log, by worker and level, and as it grows."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NoReturn

import click

from procd.cli.client import NoAnswer, Service
from procd.cli.logfile import LogFile
from procd.cli.root import config_path
from procd.config.load import load
from procd.errors import NotRunning, ProcdError
from procd.logger import formats, target
from procd.logger.entry import LEVELS, Entry
from procd.service import unit

STATUS_SECONDS = 2.0
LINES = 20
_PRIORITIES = {"debug": "debug", "info": "info", "warning": "warning", "error": "err"}


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, also by rotation.")
@click.option("--worker", type=int, metavar="N", help="Of this worker or task worker alone.")
@click.option("--level", type=click.Choice(list(LEVELS)), help="This, and what is worse.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=LINES, help="So many entries.")
@click.option("--json", "as_json", is_flag=True, help="For programs: an object a line.")
@click.pass_context
def logs(
    ctx: click.Context,
    *,
    follow: bool,
    worker: int | None,
    level: str | None,
    lines: int,
    as_json: bool,
) -> None:
    """Print the end of the log; a traceback counts as one line.

    Under systemd, where the log is the journal, this is journalctl.
    """
    path = config_path(ctx)
    file = _file(path, _journalctl(follow, worker, level, lines, as_json=as_json))
    least = LEVELS[level or "debug"]

    def wanted(entry: Entry) -> bool:
        return LEVELS[entry.level] >= least and worker in (None, entry.who.id)

    try:
        log = LogFile(file)
    except OSError as error:
        raise ProcdError(f"cannot read the log {file}: {error.strerror}") from None
    more: Iterator[Entry] = log.follow(wanted) if follow else iter(())
    colour = target.is_coloured(1, os.environ)
    try:
        for entry in chain(log.last(lines, wanted), more):
            written = formats.line(entry, "json" if as_json else "text", colour=colour)
            sys.stdout.buffer.write(written)
            sys.stdout.buffer.flush()
    except (KeyboardInterrupt, BrokenPipeError):  # Ctrl-C; `procd logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _file(path: Path, journalctl: list[str]) -> Path:
    """Return the log's file; where the log is the journal, become journalctl instead."""
    try:
        service = Service(path)
    except NotRunning:
        config = load(path)
        if config.log_file is not None:
            return config.log_file
        words = shlex.join([*journalctl, "-t", unit.name_of(config)])
        raise NotRunning(
            f"log_file is null and no procd runs for {path}: its log went to stderr, or is in "
            f"the journal: {words}"
        ) from None
    try:
        page = service.ask({"command": "status"}, STATUS_SECONDS).get("status")
    except (NoAnswer, TimeoutError):  # just then the log is wanted
        page = {"log": {"file": load(path).log_file}}
    log = page.get("log") if isinstance(page, dict) else None
    if not isinstance(log, dict) or not log.get("file"):
        _become(journalctl, service)
    return Path(log["file"])


def _become(journalctl: list[str], service: Service) -> NoReturn:
    import shutil  # not at the top: a master begins with all commands, and has no use for it

    name = service.unit()
    if name is None:
        raise ProcdError(f"log_file is null: the log goes to the stderr of pid {service.pid}")
    user = ["--user"] if service.is_of_a_user() else []
    command = [journalctl[0], *user, *journalctl[1:], "-u", name]
    if shutil.which(command[0]) is None:
        words = shlex.join(command)
        raise ProcdError(f"the log is in the journal, and there is no journalctl here: {words}")
    os.execvp(command[0], command)  # noqa: S606 - the words above, no shell


def _journalctl(
    follow: bool,  # noqa: FBT001 - the options, in their order
    worker: int | None,
    level: str | None,
    lines: int,
    *,
    as_json: bool,
) -> list[str]:
    """Return the command that shows the same of the journal."""
    words = ["journalctl", "-n", str(lines)]
    words += ["-f"] * follow + ["-o", "json"] * as_json
    words += ["-p", _PRIORITIES[level]] if level is not None else []
    return words + ([f"PROCD_WORKER={worker}"] if worker is not None else [])
