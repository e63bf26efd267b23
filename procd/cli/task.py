"""procd task: tasks of a running service."""

from __future__ import annotations

import click

from procd.cli.tasksend import send


@click.group()
def task() -> None:
    """Send tasks to a running service."""


task.add_command(send)

COMMANDS = (task,)
