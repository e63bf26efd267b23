"""The command `procd`: its root with all commands on it."""

from __future__ import annotations

from procd.cli import (
    doctor,
    examples,
    init,
    logs,
    look,
    manual,
    queue,
    service,
    stacks,
    systemd,
    task,
)
from procd.cli.root import procd

__all__ = ["main", "procd"]

ROOMS = (init, service, look, logs, stacks, doctor, systemd, task, queue, manual)

for command in (command for room in ROOMS for command in room.COMMANDS):
    procd.add_command(command)
for words, command in manual.walk(procd):
    command.epilog = examples.epilog(words)


def main() -> None:
    """Run the command line; leaves the process with its exit status."""
    procd(prog_name="procd")
