"""procd task send: one task, from a shell or a cron job."""

from __future__ import annotations

import json

import click

from procd.cli.queuepage import jsonable
from procd.cli.root import config_path
from procd.errors import TaskFailed, UsageError


@click.command()
@click.argument("name")
@click.argument("args", nargs=-1, metavar="[ARG]...")
@click.option("--wait", is_flag=True, help="Wait for the result and print it.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Wait no longer.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def send(
    ctx: click.Context,
    name: str,
    args: tuple[str, ...],
    timeout: float | None,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """Send a named task: NAME is what @task made of the function, as app.resize.

    Each ARG is JSON, and what is no JSON is text: 7 is a number, '"7"' and seven are texts. Put --
    before an ARG that begins with a dash. Returns when the task is accepted, and prints its id;
    with --wait when it is done, and prints the result.
    """
    # Here, because every command of procd imports this room.
    from procd.client.client import Client

    if timeout is not None and not wait:
        raise UsageError("--timeout is for --wait: without it nothing is waited for")
    values = [_value(text) for text in args]
    with Client(config_path(ctx)) as client:
        ref = client.send(name, *values)
        if not wait:
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


def _value(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value
