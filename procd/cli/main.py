"""The command `procd`: its root with all commands on it."""

from __future__ import annotations

from procd.cli import doctor, look, queue, service
from procd.cli.root import procd

for command in (*service.COMMANDS, *look.COMMANDS, *doctor.COMMANDS, *queue.COMMANDS):
    procd.add_command(command)


def main() -> None:
    """Run the command line; leaves the process with its exit status."""
    procd(prog_name="procd")
