"""The root of the command line: `procd [-c FILE] COMMAND [options]`.

Every error of a user is one line (or one a fault) without a traceback, and the exit
status of errors.py: 0 done, 1 failed, 2 usage or config, 3 not running.
"""

from __future__ import annotations

from pathlib import Path

import click

from procd.config import load as loading
from procd.errors import ConfigError, ProcdError


class Procd(click.Group):
    """Commands in the order that a reader meets them, errors without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ProcdError as error:
            # A config's faults begin with their place, as compilers say theirs.
            said = str(error) if isinstance(error, ConfigError) else f"procd: {error}"
            click.echo(said, err=True)
            ctx.exit(error.exit_status)


@click.group(cls=Procd, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-c", "--config", "config_file", metavar="FILE", help="The YAML config.")
@click.version_option(package_name="procd-server", prog_name="procd")
@click.pass_context
def procd(ctx: click.Context, config_file: str | None) -> None:
    """Run a hot-reloading multi-process server from one YAML config.

    Without -c the config is $PROCD_CONFIG, ./config/procd.yaml, ./procd.yaml or
    /etc/procd/procd.yaml, the first that is there.
    """
    ctx.obj = config_file


def config_path(ctx: click.Context) -> Path:
    """Return the absolute path of the config that the command is about."""
    return loading.find(ctx.obj)


overrides_option = click.option(
    "-s", "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config key."
)
