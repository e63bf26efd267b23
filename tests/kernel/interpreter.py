"""A fresh interpreter that imports an app through procd's loader and tells what it did."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]

_SCRIPT = """
import json, logging, sys
from pathlib import Path
order = json.load(sys.stdin)
logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
from procd.spawn.loader import Loader
sources = []
cache = Path(order["cache"]) if order["cache"] else None
loader = Loader(Path(order["chdir"]), cache, lambda *it: sources.append(it), order["pinned"])
loader.install()
value = error = None
try:
    found = loader.load(order["spec"])
    value = eval(order["then"])
except BaseException as raised:
    error = f"{type(raised).__name__}: {raised}"
print(json.dumps({"value": value, "error": error, "sources": sources}, default=repr))
"""


@dataclass(frozen=True)
class Told:
    """What the interpreter said at its end."""

    value: Any
    error: str | None
    sources: dict[str, str] = field(default_factory=dict)  # path → sha256
    log: str = ""

    def names(self, below: Path) -> set[str]:
        return {os.path.relpath(path, below) for path in self.sources}


def load(
    chdir: Path,
    spec: str = "app:value",
    *,
    cache: Path | None = None,
    pinned: Mapping[str, str] | None = None,
    then: str = "found",
    options: tuple[str, ...] = (),
) -> Told:
    """Load *spec* in a new interpreter and evaluate *then*, where `found` is what was loaded."""
    order = {"chdir": str(chdir), "spec": spec, "then": then, "pinned": dict(pinned or {})}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, *options, "-c", _SCRIPT],
        input=json.dumps(order | {"cache": str(cache) if cache else None}),
        capture_output=True,
        text=True,
        cwd="/",
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    return Told(told["value"], told["error"], dict(told["sources"]), done.stderr)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
