"""procd doctor: what this machine would do to the service.

What it needs is imported when it runs: a master begins as a command, and all that it has imported
is in every process of the service.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from procd.cli.client import Service
from procd.cli.root import config_path
from procd.config.load import load
from procd.doctor.findings import Finding, findings
from procd.errors import ConfigError, NotRunning, UsageError

_STYLES = {"hurts": "bold red", "note": "yellow", "ok": "green"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> None:
    """Look for what would hurt the service on this machine, and how to cure it.

    Exit status 1 if anything would. Needs no running service, and no good config.
    """
    found = _found(ctx)
    if as_json:
        click.echo(json.dumps({"findings": [asdict(finding) for finding in found]}))
    else:
        _show(found)
    ctx.exit(int(any(finding.level == "hurts" for finding in found)))


def _found(ctx: click.Context) -> list[Finding]:
    from procd.doctor.examine import examine

    config, error, pid, unit = None, None, None, None
    try:
        path = config_path(ctx)
    except UsageError:
        return findings(examine(None, None))
    try:
        config = load(path)
    except ConfigError as fault:
        error = str(fault)
    try:
        service = Service(path)
        pid, unit = service.pid, service.unit()
    except NotRunning:
        pass
    return findings(examine(config, error, pid, unit))


def _show(found: list[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for finding in found:
        line = Text(f"{finding.level:5}  ", style=_STYLES[finding.level])
        line.append(f"{finding.about}: {finding.what}", style="default")
        console.print(line, soft_wrap=True)
        if finding.cure:
            console.print(Text(f"       cure: {finding.cure}", style="dim"), soft_wrap=True)
    count = sum(finding.level == "hurts" for finding in found)
    console.print(f"{count} would hurt" if count else "nothing would hurt")
