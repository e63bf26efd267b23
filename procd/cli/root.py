"""The root of the command line: `procd [-c FILE] COMMAND [options]`.

Every error of a user is one line (or one a fault) without a traceback, and the exit
status of errors.py: 0 done, 1 failed, 2 usage or config, 3 not running.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click

from procd.cli.examples import epilog
from procd.config.find import find
from procd.errors import ConfigError, ProcdError

# Each command's room, in the order that a reader meets them. It is imported when the command is
# called: `procd status` has no use for what `procd doctor` needs.
ROOMS = {
    "init": "init",
    "start": "start",
    "stop": "running",
    "restart": "start",
    "reload": "running",
    "scale": "running",
    "status": "status",
    "check": "check",
    "logs": "logs",
    "stacks": "stacks",
    "doctor": "doctor",
    "systemd": "systemd",
    "task": "task",
    "queue": "queue",
    "completion": "manual",
    "man": "manual",
}


class Procd(click.Group):
    """Commands that are imported when they are called, errors without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(ROOMS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ROOMS and cmd_name not in self.commands:
            room = import_module(f"procd.cli.{ROOMS[cmd_name]}")
            command: click.Command = getattr(room, cmd_name)
            self.add_command(command)
            for words, one in walk(command, cmd_name):
                one.epilog = epilog(words)
        return super().get_command(ctx, cmd_name)

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
    return find(ctx.obj)


def walk(command: click.Command, words: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with the words that call it."""
    if not isinstance(command, click.Group):
        yield words, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is not None:
            yield from walk(found, f"{words} {name}".strip())


overrides_option = click.option(
    "-s", "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config key."
)
