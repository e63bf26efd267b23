"""procd task send: one task, from a shell or a cron job."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, cast

import click

from procd.cli.queuepage import jsonable
from procd.cli.root import config_path
from procd.errors import TaskFailed, UsageError

if TYPE_CHECKING:
    from procd.tasks.options import Given


@click.command()
@click.argument("name")
@click.argument("args", nargs=-1, metavar="[ARG]...")
@click.option("--wait", is_flag=True, help="Wait for the result and print it.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Wait no longer.")
@click.option(
    "-o",
    "--option",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="One of the task, as delay=5, key=a.png, delivery=durable.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def send(
    ctx: click.Context,
    name: str,
    args: tuple[str, ...],
    timeout: float | None,
    pairs: tuple[str, ...],
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """Send a named task: NAME is what @task made of the function, as app.resize.

    Each ARG is JSON, and what is no JSON is text: 7 is a number, '"7"' and seven are texts. Put --
    before an ARG that begins with a dash. Returns when the task is accepted (a durable one: when it
    is on the disk), and prints its id; with --wait when it is done, and prints the result.

    Options: retries, timeout, priority, delay, ttl, key, delivery, at=2026-12-24T18:00+01:00 and
    so on, as a named task's options() has them. What its decorator says does not count.
    """
    # Here, because every command of procd imports this room.
    from procd.client.client import Client

    if timeout is not None and not wait:
        raise UsageError("--timeout is for --wait: without it nothing is waited for")
    with Client(config_path(ctx)) as client:
        ref = client.options(**_given(pairs)).send(name, *map(_value, args))
        if not wait:
            ref.accepted()
            click.echo(json.dumps({"id": ref.id}) if as_json else f"accepted {ref.id}")
            return
        try:
            result = ref.result(timeout)
        except TaskFailed as error:
            if error.traceback:
                click.echo(error.traceback, err=True)
            raise
    if as_json:
        click.echo(json.dumps({"id": ref.id, "result": jsonable(result)}))
    else:
        click.echo(result if isinstance(result, str) else json.dumps(jsonable(result)))


def _given(pairs: tuple[str, ...]) -> Given:
    """Return options that can be; raises UsageError."""
    from procd.tasks.options import PLAIN

    given: dict[str, object] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise UsageError(f"--option {pair}: it takes NAME=VALUE")
        given[name] = text if name in ("key", "delivery") else _value(text)
        if name == "at" and isinstance(given[name], str):
            try:
                given[name] = datetime.fromisoformat(text)
            except ValueError as error:
                raise UsageError(f"--option {pair}: {error}") from None
    try:
        PLAIN.but(cast("Given", given))
    except (TypeError, ValueError) as error:
        raise UsageError(f"--option {error}") from None
    return cast("Given", given)


def _value(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value
