"""Which sources a generation was imported from, kept so that its template can be born again.

A file a generation in the folder of the code cache: path → sha256 of every source. The code
itself stands in the cache under those hashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from procd import logs
from procd.ipc import wire
from procd.spawn.codecache import CodeCache

KEPT = 8  # generations: more than can serve, drain or boot at once in any sane config


def keep(code_dir: Path, generation: int, sources: Mapping[str, str]) -> None:
    """Write a generation's manifest; a failure is logged, and costs its rebirth only."""
    path = _path(code_dir, generation)
    try:
        code_dir.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(wire.pack(dict(sources)))
    except OSError as error:
        logs.warning("no manifest", file=path, why=error)


def read(code_dir: Path, generation: int) -> dict[str, str]:
    """Return what keep() wrote; empty, and said, if that is lost."""
    found = _read(_path(code_dir, generation))
    if not found:
        logs.warning("no manifest: the code comes from the disk", generation=generation)
    return found


def prune(code_dir: Path, newest: int) -> None:
    """Every KEPT generations: remove the manifests and the code that nobody needs any more."""
    if newest % KEPT:
        return
    for path in code_dir.glob("generation-*"):
        number = path.name.rpartition("-")[2]
        if number.isdecimal() and int(number) <= newest - KEPT:
            with suppress(OSError):
                path.unlink()
    kept = [_read(path) for path in code_dir.glob("generation-*")]
    CodeCache(code_dir).prune(pair for each in kept for pair in each.items())


def _path(code_dir: Path, generation: int) -> Path:
    return code_dir / f"generation-{generation}"


def _read(path: Path) -> dict[str, str]:
    try:
        found = wire.unpack(path.read_bytes())
    except (OSError, wire.Undecodable):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
