"""The units of the repository, as settings."""

from __future__ import annotations

from pathlib import Path

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE, SOCKET = UNITS / "procd@.service", UNITS / "procd@.socket"


def settings_of(text: str) -> dict[str, list[str]]:
    """Return each setting of a unit with its values in order; comments are no settings."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found
