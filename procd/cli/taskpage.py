"""What `procd task` prints: a table of tasks, and all about one."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Mapping, Sequence

import click

from procd.cli.queuepage import jsonable
from procd.ipc import wire

Json = dict[str, object]

_WIDE = 300  # of a line that no terminal reads
_ERROR = 80  # characters of an error in the table


def show_all(found: Sequence[Mapping[str, object]], total: int) -> None:
    """Print a table of tasks."""
    if not found:
        click.echo("no such tasks")
        return
    # Here, because every command of procd imports this room and few draw a table.
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("id", "state", "name", "attempts", "accepted", "ended", "by", "error"):
        is_number = name in ("id", "attempts")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
    for task in found:
        error = str(task["error"] or "").splitlines()[:1]
        table.add_row(
            str(task["id"]),
            str(task["state"]),
            str(task["name"] or ""),
            str(task["attempts"]),
            _when(task["accepted_at"]),
            _when(task["finished_at"]),
            str(task["how"] or ""),
            "".join(error)[:_ERROR],
        )
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDE
    console.print(table)
    if total > len(found):
        click.echo(f"{total - len(found)} more: --limit {total} shows all")


def show_one(task: Mapping[str, object]) -> None:
    """Print all that is known of a task, a line each, its traceback last."""
    size = task["data_bytes"]
    for name, value in (
        ("id", task["id"]),
        ("state", task["state"]),
        ("name", task["name"] or "none: for on_task"),
        ("attempts", task["attempts"]),
        ("priority", task["priority"]),
        ("sent by", f"worker {task['src_worker_id']}"),
        ("accepted", _when(task["accepted_at"])),
        ("ended", _when(task["finished_at"])),
        ("by", task["how"]),
        ("error", task["error"]),
        ("bytes", size),
        ("data", None if size is None else json.dumps(_data(task), ensure_ascii=False)),
    ):
        if value not in (None, ""):
            click.echo(f"{name:<9} {value}")
    if task.get("traceback"):
        click.echo(task["traceback"])


def plain(task: Mapping[str, object]) -> Json:
    """Return a task as JSON has it, with its data as the value that it is."""
    return {**task, "data": _data(task)}


def _data(task: Mapping[str, object]) -> object:
    """Return a task's data as a value; {"base64": ...} of the beginning if that is all there is."""
    if task.get("data") is None:
        return None
    packed = base64.b64decode(str(task["data"]))
    if len(packed) == task["data_bytes"]:
        try:
            return jsonable(wire.unpack(packed))
        except wire.Undecodable:
            pass
    return {"base64": task["data"], "of_bytes": task["data_bytes"]}


def _when(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return ""
    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
