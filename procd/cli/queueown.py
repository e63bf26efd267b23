"""procd queue status, clean, and the own queue for peek: the queues of procd itself."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import click

from procd.cli.root import config_path
from procd.config.find import find
from procd.config.load import load
from procd.errors import ConfigError, NotRunning, ProcdError
from procd.ipc import Queue
from procd.ipc.layout import WORD
from procd.ipc.words import SlotState
from procd.linux import sysvtable
from procd.linux.sysv import QueueError, label
from procd.linux.sysvtable import QueueStat
from procd.master import publicqueue
from procd.master.lease import noted_queue
from procd.service import record, remains

json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.command()
@json_option
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Show the service's own queues, and how many slots of its arena are in each state."""
    state_dir = state_dir_of(config_path(ctx))
    own, public = _queue_page(_noted(state_dir)), _queue_page(publicqueue.noted(state_dir))
    slots = _slots(state_dir)
    if as_json:
        where = {"state_dir": str(state_dir)}
        click.echo(json.dumps({**where, "queue": own, "public_queue": public, "slots": slots}))
        return
    click.echo(f"{'queue':<13} {_line(own)}")
    click.echo(f"{'public queue':<13} {_line(public)}")
    told = "no arena" if slots is None else ", ".join(f"{n} {s}" for s, n in slots.items() if n)
    click.echo(f"{'slots':<13} {told}")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only list what would go.")
@json_option
@click.pass_context
def clean(ctx: click.Context, *, dry_run: bool, as_json: bool) -> None:
    """Remove what services that do not run any more have left: queues, empty arenas, records.

    What has tasks or messages in it stays, and so does what was set aside; it is listed with what
    to do. Of services that run nothing is touched.
    """
    found = list(remains.clean(_config(ctx), is_dry=dry_run))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
        return
    verb = "would remove" if dry_run else "removed"
    for one in found:
        click.echo(f"{one.kind} {one.where}: {f'kept: {one.kept}' if one.kept else verb}")
    if not found:
        click.echo("nothing is left of services that do not run")


def show_own(path: Path, count: int, *, as_json: bool) -> int:
    """Print the tokens in the service's own queue; how many there were."""
    key, _ = _noted(state_dir_of(path))
    if not key:
        raise NotRunning(f"no procd runs for {path}, so it has no queue")
    shown = 0
    for index, (data, priority) in enumerate(Queue.open(key, "r").peek_all()):
        task = WORD.unpack(data)[0] if len(data) == WORD.size else None
        if as_json:
            click.echo(json.dumps({"type": priority, "bytes": len(data), "task": task}))
        else:
            told = f"task {task}" if task is not None else f"no task: {data[:50]!r}"
            click.echo(f"#{index} priority {priority}: {told}")
        shown += 1
        if shown == count:
            break
    return shown


def state_dir_of(path: Path) -> Path:
    """Return a service's state_dir, as its record says if it runs; raises ConfigError."""
    found = record.read(path)
    if found is not None and found.alive and found.state_dir is not None:
        return found.state_dir
    return load(path).state_dir


def _config(ctx: click.Context) -> tuple[Path, Path] | None:
    try:
        path = find(ctx.obj)
        return path, state_dir_of(path)
    except (ConfigError, ProcdError):
        return None  # the records of others are looked at all the same


def _noted(state_dir: Path) -> tuple[int, int]:
    try:
        return noted_queue(state_dir / "lease")
    except FileNotFoundError:
        return 0, 0
    except OSError as error:
        raise ProcdError(f"{state_dir}: {error.strerror}: become the service's user") from None


def _queue_page(noted: tuple[int, int]) -> dict[str, object] | None:
    key = noted[0]
    row = next((row for row in sysvtable.rows() if key and (row.key, row.id) == noted), None)
    if row is None:
        return None
    limit = None
    with suppress(QueueError):  # the table tells all but this to who may not read it
        limit = Queue.open(key, "r").stat().bytes_max
    page: dict[str, object] = {"key": label(key), "id": row.id, "messages": row.messages}
    return page | {"bytes": row.bytes, "bytes_max": limit, "idle": _idle(row)}


def _idle(row: QueueStat) -> float | None:
    """Return the seconds since the last receive."""
    return max(0.0, round(time.time() - row.last_receive, 1)) if row.last_receive else None


def _slots(state_dir: Path) -> dict[str, int] | None:
    states = remains.states_in(state_dir / "arena")
    return None if states is None else {s.name.lower(): states[s] for s in SlotState}


def _line(page: dict[str, object] | None) -> str:
    if page is None:
        return "none"
    limit = "" if page["bytes_max"] is None else f" of {page['bytes_max']}"
    filled = f"{page['messages']} messages, {page['bytes']}{limit} bytes"
    return f"{page['key']} (id {page['id']}): {filled}"


COMMANDS = (status, clean)
