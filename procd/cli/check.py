"""check: whether the service would start."""

from __future__ import annotations

import click

from procd.cli.checking import check_app
from procd.cli.root import config_path, overrides_option
from procd.cli.waiting import shown
from procd.config.load import load
from procd.errors import ConfigError
from procd.linux import process


@click.command()
@overrides_option
@click.pass_context
def check(ctx: click.Context, overrides: tuple[str, ...]) -> None:
    """Validate the config and import the app; print every problem with its place."""
    config = load(config_path(ctx), overrides)
    with shown("checking the app"):
        problem = check_app(config)
    if problem is not None:
        raise ConfigError(problem)
    if process.identity(config.user, config.group)[0] == 0:
        click.echo("procd: started like this its workers run as root: set `user`", err=True)
    click.echo(f"{config.path}: good")
