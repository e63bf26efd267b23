"""procd queue: message queues from a shell.

Needs no config and no service, but for `rejected`, `status` and `peek` without a key.

A message that has been taken off is printed whatever it is: where it is not of the format that
was asked for, as the bytes that came.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict

import click

from procd.cli import queueown, queuepage
from procd.cli.client import Service
from procd.cli.root import config_path
from procd.errors import ProcdError, UsageError
from procd.ipc import Queue, QueueEmpty
from procd.ipc.foreign import jsontext
from procd.ipc.foreign.codec import CODECS, Codec
from procd.ipc.keys import parse_key
from procd.ipc.wire import Undecodable
from procd.linux import sysvtable
from procd.linux.sysv import MessageQueue, QueueGone, label
from procd.linux.sysvtable import QueueStat
from procd.service import owners


class Key(click.ParamType[int]):
    """A queue's key: a number, 0x... or FILE:LETTER."""

    name = "key"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_key(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SECONDS = 5.0  # for the service to answer

key_argument = click.argument("key", type=Key())
json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")
format_option = click.option(
    "--format",
    "codec",
    type=click.Choice(list(CODECS)),
    callback=lambda _ctx, _param, name: CODECS[name],
    default="text",
    show_default=True,
    help="What the bytes of a message mean.",
)
timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait; 0 = not at all. Without it, for ever.",
)


@click.group()
def queue() -> None:
    """Look at System V message queues, and use them.

    KEY is the number that the programs share (1963150487, 0x75034c97), or FILE:LETTER where they
    make it with ftok().
    """


@queue.command("ls")
@json_option
def list_all(*, as_json: bool) -> None:
    """List all queues, and which procd each belongs to."""
    services = owners.running()
    found = [(row, owners.owner_of(row, services)) for row in sysvtable.rows()]
    if as_json:
        click.echo(json.dumps([_as_json(row, owner) for row, owner in found]))
    else:
        queuepage.show_all(found)


@queue.command()
@key_argument
@json_option
def stat(key: int, *, as_json: bool) -> None:
    """Show everything that the kernel knows about a queue."""
    row = _row(key)
    with suppress(ProcdError):  # the table tells all but its size to who may not read it
        row = Queue.open(key, "r").stat()
    owner = owners.owner_of(row, owners.running())
    if as_json:
        click.echo(json.dumps(_as_json(row, owner)))
    else:
        queuepage.show_one(row, owner)


@queue.command()
@key_argument
@click.argument("data", required=False)
@click.option(
    "--type",
    "mtype",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="By which receivers choose.",
)
@format_option
@timeout_option
def send(key: int, data: str | None, mtype: int, codec: Codec, timeout: float | None) -> None:
    """Send DATA, or what stands on standard input.

    DATA is written as JSON for the formats json, msgpack and php ('"a word"', '{"n": 7}').
    """
    if data is None:
        raw = sys.stdin.buffer.read()
        if codec.name == "text":
            raw = raw.removesuffix(b"\n")
    else:
        raw = os.fsencode(data)
    Queue.open(key, "w").send(_encoded(raw, codec), mtype, timeout)


@queue.command()
@key_argument
@click.option(
    "--type",
    "mtype",
    type=int,
    default=0,
    help="0 = the oldest message; N = the oldest of that type; -N = of the lowest up to N.",
)
@click.option("--except", "excluding", type=click.IntRange(min=1), help="Of any type but this.")
@click.option("--count", type=click.IntRange(min=0), default=1, help="How many; 0 = no end.")
@format_option
@timeout_option
@json_option
def receive(
    key: int,
    mtype: int,
    excluding: int | None,
    count: int,
    codec: Codec,
    timeout: float | None,
    *,
    as_json: bool,
) -> None:
    """Take messages off and print them."""
    if mtype and excluding:
        raise UsageError("either --type or --except")
    opened = Queue.open(key, "r")
    received = 0
    fault = None
    while not count or received < count:
        data, found = opened.receive(mtype, timeout, excluding=excluding)
        received += 1
        fault = queuepage.show_message(data, found, codec, as_json=as_json) or fault
    if fault:
        raise ProcdError(f"{fault}; the message was printed as it came")


@queue.command()
@click.argument("key", type=Key(), required=False)
@click.option("--type", "mtype", type=click.IntRange(min=1), help="Only those of this type.")
@click.option("--count", type=click.IntRange(min=0), default=0, help="At most so many; 0 = all.")
@format_option
@json_option
@click.pass_context
def peek(
    ctx: click.Context,
    key: int | None,
    mtype: int | None,
    count: int,
    codec: Codec,
    *,
    as_json: bool,
) -> None:
    """Print messages and leave them where they are.

    Without KEY the tokens in the service's own queue, each with its task's id.
    """
    if key is None:
        if not queueown.show_own(config_path(ctx), count, as_json=as_json):
            raise QueueEmpty("the service's queue is empty: no task waits for a task worker")
        return
    shown = 0
    for index, (data, found) in enumerate(Queue.open(key, "r").peek_all()):
        if mtype is not None and found != mtype:
            continue
        if as_json:
            queuepage.show_message(data, found, codec, as_json=True)
        else:
            queuepage.show_peeked(index, data, found, codec)
        shown += 1
        if shown == count:
            break
    if not shown:
        raise QueueEmpty(f"queue {label(key)} holds no such message")


@queue.command()
@click.argument("keys", type=Key(), nargs=-1, required=True, metavar="KEY...")
def rm(keys: tuple[int, ...]) -> None:
    """Remove queues, but none of a procd that runs."""
    services = owners.running()
    # All are looked at before the first is gone.
    doomed = [(_row(key), MessageQueue.open(key, 0)) for key in dict.fromkeys(keys)]
    for row, handle in doomed:
        for service in services:
            if service.may_have(row):
                which = "public" if service.has_public(row) else "task"
                raise ProcdError(
                    f"{handle!r} {'is' if service.has(row) else 'may be'} the {which} queue of the"
                    f" procd that runs for {service.config_path} (pid {service.pid}): `procd -c"
                    f" {service.config_path} stop` removes it"
                )
        if row.id != handle.id:
            raise QueueGone(f"{handle!r} was just made anew by another program: look again")
    for _, handle in doomed:
        handle.remove()


@queue.command()
@json_option
@click.pass_context
def rejected(ctx: click.Context, *, as_json: bool) -> None:
    """Show the last messages of foreign programs that the service refused, and why."""
    answer = Service(config_path(ctx)).ask({"command": "rejected"}, SECONDS)
    samples = answer.get("samples")
    if not isinstance(samples, list):
        raise ProcdError(str(answer.get("error")))
    if as_json:
        click.echo(json.dumps(samples))
    else:
        queuepage.show_rejected(samples)


def _row(key: int) -> QueueStat:
    for row in sysvtable.rows():
        if row.key == key:
            return row
    raise QueueGone(f"there is no queue {label(key)}: `procd queue ls` lists those that are")


def _encoded(raw: bytes, codec: Codec) -> bytes:
    try:
        match codec.name:
            case "raw":
                return raw
            case "text":
                CODECS["text"].decode(raw)
                return raw
        return codec.encode(jsontext.load(raw))
    except Undecodable as error:
        hint = "" if codec.name == "text" else """ (a plain string is '"in quotes"')"""
        raise UsageError(f"DATA is {error}{hint}") from None
    except TypeError as error:
        raise UsageError(f"DATA cannot be sent as {codec.name}: {error}") from None


def _as_json(row: QueueStat, owner: owners.Owner | None) -> dict[str, object]:
    service = None
    if owner is not None:
        service = {"config": str(owner.config_path), "pid": owner.pid}
    return {**asdict(row), "mode": f"{row.mode:04o}", "key_hex": label(row.key), "service": service}


for each in queueown.COMMANDS:
    queue.add_command(each)
