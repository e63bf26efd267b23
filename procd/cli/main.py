"""The command `procd`."""

from __future__ import annotations

from procd.cli.root import procd

__all__ = ["main", "procd"]


def main() -> None:
    """Run the command line; leaves the process with its exit status."""
    procd(prog_name="procd")
