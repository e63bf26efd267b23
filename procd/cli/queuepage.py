"""What `procd queue` prints: the table, one queue, one message."""

from __future__ import annotations

import base64
import datetime as dt
import json
import pwd
import sys
from collections.abc import Mapping, Sequence

import click

from procd.ipc.foreign.codec import Codec
from procd.ipc.wire import Undecodable
from procd.linux.sysv import label
from procd.linux.sysvtable import QueueStat
from procd.service.owners import Owner

_SHOWN = 200  # characters of a message that peek shows of it
_WIDE = 500  # of a line that no terminal reads


def show_all(found: Sequence[tuple[QueueStat, Owner | None]]) -> None:
    """Print a table of queues, each with the service that it belongs to."""
    if not found:
        click.echo("no message queues here")
        return
    # Here, because every command of procd imports this room and few draw a table.
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("key", "id", "owner", "mode", "messages", "bytes", "sent", "received", "service"):
        is_number = name in ("id", "messages", "bytes")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
    for row, owner in found:
        table.add_row(
            _key(row),
            str(row.id),
            _user(row.owner_uid),
            f"{row.mode:04o}",
            str(row.messages),
            str(row.bytes),
            _when(row.last_send),
            _when(row.last_receive),
            _service(owner),
        )
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDE
    console.print(table)


def show_one(row: QueueStat, owner: Owner | None) -> None:
    """Print all that is known of one queue, a line each."""
    bytes_max = "" if row.bytes_max is None else f" of {row.bytes_max}"
    for name, value in (
        ("key", f"{_key(row)} ({row.key})"),
        ("id", row.id),
        ("owner", f"{_user(row.owner_uid)}, group {row.owner_gid}"),
        ("creator", f"{_user(row.creator_uid)}, group {row.creator_gid}"),
        ("mode", f"{row.mode:04o}"),
        ("messages", row.messages),
        ("bytes", f"{row.bytes}{bytes_max}"),
        ("sent", f"{_when(row.last_send)}{_by(row.last_send_pid)}"),
        ("received", f"{_when(row.last_receive)}{_by(row.last_receive_pid)}"),
        ("changed", _when(row.last_change)),
        ("service", _service(owner) or "none that runs"),
    ):
        click.echo(f"{name:<9} {value}")


def show_message(data: bytes, mtype: int, codec: Codec, *, as_json: bool) -> str | None:
    """Print a message; what it lacks to be of that format is returned, and it is printed as is."""
    fault = None
    value: object = None
    try:
        value = codec.decode(data)
    except Undecodable as error:
        fault = str(error)
    if as_json:
        line: dict[str, object] = {"type": mtype, "bytes": len(data)}
        if fault or codec.name == "raw":
            line["base64"] = base64.b64encode(data).decode()
        else:
            line["data"] = jsonable(value)
        if fault:
            line["error"] = fault
        click.echo(json.dumps(line))
    elif fault or codec.name == "raw":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        click.echo(value if codec.name == "text" else _json(value))
    return fault


def show_peeked(index: int, data: bytes, mtype: int, codec: Codec) -> None:
    """Print a message on one line, however long it is and whatever is in it."""
    try:
        value = codec.decode(data)
        text = repr(value) if codec.name in ("raw", "text") else _json(value)
    except Undecodable as error:
        text = f"{data!r} ({error})"
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}..."
    click.echo(f"#{index} type {mtype}, {len(data)} bytes: {text}")


def show_rejected(samples: Sequence[Mapping[str, object]]) -> None:
    """Print messages that a service refused, the oldest first."""
    for sample in samples:
        head = bytes.fromhex(str(sample["head"]))
        size = int(str(sample["size"]))
        when = _when(int(float(str(sample["when"]))))
        words = str(sample["why"])
        why = f"{sample['reason']}: {''.join(c if c.isprintable() else '?' for c in words)}"
        click.echo(f"{when} type {sample['mtype']}, {size} bytes: {why}")
        click.echo(f"    {head!r}{'...' if size > len(head) else ''}")
    if not samples:
        click.echo("no message was refused since the service started")


def jsonable(value: object) -> object:
    """Return *value* as JSON has it: bytes as {"base64": ...}, times as text, keys as text."""
    match value:
        case bytes():
            return {"base64": base64.b64encode(value).decode()}
        case dt.datetime():
            return value.isoformat()
        case list():
            return [jsonable(item) for item in value]
        case dict():
            return {_key_text(key): jsonable(item) for key, item in value.items()}
        case _:
            return value


def _json(value: object) -> str:
    return json.dumps(jsonable(value), ensure_ascii=False)


def _key_text(key: object) -> str:
    match key:
        case str():
            return key
        case bytes():
            return key.decode("utf-8", "backslashreplace")
        case _:
            return json.dumps(key)


def _key(row: QueueStat) -> str:
    return label(row.key) if row.key else "private"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _when(seconds: int) -> str:
    if not seconds:
        return "never"
    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _by(pid: int) -> str:
    return f" by pid {pid}" if pid else ""


def _service(owner: Owner | None) -> str:
    return "" if owner is None else f"{owner.config_path} (pid {owner.pid})"
