"""status: how the service stands."""

from __future__ import annotations

import json

import click

from procd.cli.client import NoAnswer, Service
from procd.cli.root import config_path
from procd.errors import NotRunning, ProcdError
from procd.linux import process

SECONDS = 5.0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Show how the service stands."""
    path = config_path(ctx)
    try:
        service = Service(path)
    except NotRunning:
        if as_json:
            click.echo(json.dumps({"state": "stopped", "config": {"path": str(path)}}))
        raise
    try:
        answer = service.ask({"command": "status"}, SECONDS)
    except (NoAnswer, TimeoutError) as error:
        raise ProcdError(f"pid {service.pid} runs but does not answer: {error}") from None
    page = answer.get("status")
    if not isinstance(page, dict):
        raise ProcdError(str(answer.get("error")))
    for entry in page["processes"]:
        rss, pss = process.memory(entry["pid"]) if entry["pid"] else (None, None)
        entry["rss_bytes"], entry["pss_bytes"] = rss, pss
    for entry in page.get("leftovers", ()):
        entry["command"] = process.command(entry["pid"])
    if as_json:
        click.echo(json.dumps(page))
    else:
        from procd.cli.page import show

        show(page)
