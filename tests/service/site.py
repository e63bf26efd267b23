"""Third-party packages of a test: in a folder of their own, on PYTHONPATH and outside of chdir."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.service.conftest import Serve
from tests.service.daemon import REPOSITORY, Service

# What a module does first: note by whom it is imported.
NOTE = """
import json, os
_line = ["import", __name__, os.getpid(), open("/proc/self/comm").read().strip()]
_fd = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(_fd, json.dumps(_line).encode() + b"\\n")
os.close(_fd)
"""
IN_BASE = 'if open("/proc/self/comm").read().startswith("procd: base"):\n    '
MARK = 'VERSION = "1"'  # where the app gets its imports


class Site:
    """Packages by their files; each version is put there whole, as pip does."""

    def __init__(self, folder: Path, service: Service) -> None:
        self.folder = folder
        self._service = service

    def write(self, files: Mapping[str, str]) -> None:
        """Write modules, each of which notes its imports; a file is replaced by a rename."""
        for name, source in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(path.name + ".new")
            fresh.write_text(NOTE + source)
            fresh.replace(path)

    def importers(self, module: str) -> list[str]:
        """The processes that imported *module*, by name, in order: "base", "template" ..."""
        rows = self._service.ledger("import")
        return [row[2].removeprefix("procd: ") for row in rows if row[0] == module]

    def forget(self) -> None:
        self._service.ledger_path.unlink(missing_ok=True)


def begin(
    make: Serve,
    folder: Path,
    files: Mapping[str, str],
    imports: str = "import lib",
    **config: Any,
) -> tuple[Service, Site]:
    """A started service whose app does *imports*, with the packages *files*."""
    service = make(**({"task_worker_num": 1} | config))
    site = Site(folder, service)
    site.write(files)
    service.extra_environment["PYTHONPATH"] = f"{REPOSITORY}:{folder}"
    service.edit(MARK, f"{imports}\n{MARK}")
    return service.start(), site


def wait_warm(service: Service, seconds: float = 15) -> None:
    """Wait until a new generation finds all imported, and something to be found."""

    def is_warm() -> bool:
        base = service.status()["base"]
        return base["is_warm"] and base["preloaded"] > 0

    service.wait_for(is_warm, seconds, "warm base")


def of_each(service: Service, expression: str) -> dict[int, Any]:
    """What each worker says to *expression*, by pid; asked until all have answered."""
    workers = set(service.pids("worker"))
    found: dict[int, Any] = {}

    def all_answered() -> bool:
        pid, answer = service.ask(f"[os.getpid(), {expression}]")
        found[pid] = answer
        return workers <= found.keys()

    service.wait_for(all_answered, 20, f"an answer of each of {workers}")
    return {pid: found[pid] for pid in workers}


def end(service: Service, seat: int) -> None:
    """Kill who sits there, and wait until another does."""
    before = service.seats()
    service.kill(before[seat])
    service.wait_for(
        lambda: len(service.seats()) == len(before) and before[seat] not in service.seats(), 10
    )
