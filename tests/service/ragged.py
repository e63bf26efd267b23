"""A service whose sources are saved in ragged ways, and what must hold at the end of each.

The app imports `parts`, which imports `one` and `two`; `parts.NAMES` is what it is made of.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tests.service.daemon import Service, pause, scaled

BEGUN = "generation booting"
ENDED = ("reloaded in ", "reload refused: ", "started ")
WINDOW = 0.2  # in which nothing more may happen; the watch waits for a hundredth of a second
NUMBERS = count(1)


@dataclass
class Tally:
    """What a number of rounds came to."""

    rounds: int = 0
    begun: list[int] = field(default_factory=list)  # generations of each round

    def __str__(self) -> str:
        most = max(self.begun, default=0)
        return (
            f"{self.rounds} of {self.rounds} served = on disk, "
            f"{sum(self.begun)} generations, at most {most} in a round"
        )


class Site:
    """The sources of a running service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.root = service.root

    def lay(self) -> None:
        """Write the sources as the first round finds them."""
        shutil.rmtree(self.root / "one", ignore_errors=True)
        for name in ("one", "uno"):
            self.path(name).unlink(missing_ok=True)
        self.path("parts").write_text("import one\nimport two\nNAMES = [one.NAME, two.NAME]\n")
        for name in ("one", "two"):
            self.save(name)

    def path(self, name: str) -> Path:
        return self.root / f"{name}.py"

    @staticmethod
    def fresh() -> str:
        """A value that no file has held yet; all are of one size."""
        return f"{next(NUMBERS):06d}"

    def text(self, value: str | None = None, more: str = "") -> str:
        return f'NAME = "{value or self.fresh()}"\n{more}'

    def save(self, name: str, value: str | None = None, more: str = "") -> None:
        """Save a module in place: emptied, written, closed."""
        self.path(name).write_text(self.text(value, more))

    def on_disk(self) -> object:
        """What a Python that starts now, and knows no bytecode, finds there."""
        script = f"import sys; sys.path.insert(0, {str(self.root)!r}); "
        script += "import json, parts; print(json.dumps(parts.NAMES))"
        done = subprocess.run(
            [sys.executable, "-ISB", "-X", "pycache_prefix=/nonexistent", "-c", script],
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    def served(self) -> object:
        return self.service.ask("parts.NAMES")

    # -- the log -------------------------------------------------------------------------------

    def begun(self) -> int:
        """How many generations were ever begun."""
        return self.service.log().count(BEGUN)

    def is_at_rest(self) -> bool:
        """Whether each of them has won or was refused, and nothing of an older one is left."""
        log = self.service.log()
        is_over = log.count(BEGUN) == sum(log.count(word) for word in ENDED)
        return is_over and " drained " in log.rpartition(ENDED[0])[2]

    def wait_until_served(self, expected: object, what: str) -> None:
        """*expected* is served by every worker, and nothing more happens."""
        self.service.wait_for(lambda: self.served() == expected, 15, what)
        self.service.wait_for(self.is_at_rest, 15, "end of the reload")
        begun = self.begun()
        pause(WINDOW)
        assert self.begun() == begun, f"and another generation, {what}:\n{self.service.log()}"
        answers = {json.dumps(self.served()) for _ in range(6)}
        assert answers == {json.dumps(expected)}, f"{answers}, {what}"


def held(path: Path) -> str:
    """Source that shows at *path* that it is imported, and waits until that is gone."""
    name = repr(str(path))
    return (
        f"import os, time\nopen({name}, 'w').close()\n"
        f"while os.path.exists({name}): time.sleep(0.005)\n"
    )


Edit = Callable[[Site], None]
Record = Callable[[str, object], None]


@contextmanager
def watched(**config: Any) -> Iterator[Site]:
    """A service that watches its sources, for the tests of a module."""
    service = Service(watch_file=True, task_worker_num=1, **config)
    site = Site(service)
    try:
        service.edit("import ast\n", "import ast\nimport parts\n")
        site.lay()
        service.start()
        yield site
    except BaseException:
        service.destroy()
        raise
    service.close()


def rounds(site: Site, edit: Edit, *, usual: int, most: int) -> Tally:
    """Make *edit* often: at the end of each, what is served is what is on disk, and it rests.

    Each may take *most* generations, refused ones included; half of them no more than *usual*.
    """
    tally = Tally()
    for _ in range(scaled(50)):
        before = site.begun()
        edit(site)
        site.wait_until_served(site.on_disk(), f"served = on disk after {tally}")
        begun = site.begun() - before
        assert begun <= most, f"{begun} generations after {tally}:\n{site.service.log()}"
        tally.rounds += 1
        tally.begun.append(begun)
    assert sorted(tally.begun)[(tally.rounds - 1) // 2] <= usual, tally
    return tally
