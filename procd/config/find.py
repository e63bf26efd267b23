"""Which file a command is about: found without reading it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from procd.config.fault import printable
from procd.errors import UsageError

SEARCHED = ("config/procd.yaml", "procd.yaml", "/etc/procd/procd.yaml")


def find(explicit: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the absolute path of the config that a command means.

    A file that was named (by -c or $PROCD_CONFIG) need not exist: `stop` finds its service by the
    path alone, and load() says what is wrong with it. Raises UsageError, naming what was tried.
    """
    if explicit == "":
        raise UsageError("-c needs the name of a file")
    named = explicit or environ.get("PROCD_CONFIG")
    tried = [named] if named else SEARCHED
    try:
        paths = [os.path.abspath(path) for path in tried]
    except FileNotFoundError:
        raise UsageError(
            "the working directory is gone; cd elsewhere, or give -c /a/path"
        ) from None
    for path in paths:
        if named or os.path.lexists(path):
            return Path(path)
    places = ", ".join(printable(path) for path in paths)
    raise UsageError(f"no config: tried {places}; name one with -c FILE or PROCD_CONFIG")
