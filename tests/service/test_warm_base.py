"""The warm base: what the app uses of others is imported once, and no generation does it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.conftest import Serve
from tests.service.site import begin, end, of_each, wait_warm

LIB = {"lib/__init__.py": "from lib import part\nX = 1\n", "lib/part.py": ""}
AT_WORKER_START = "def opened() -> None:\n"


@pytest.mark.short
def test_what_the_first_start_imported_no_reload_imports_again(make: Serve, tmp_path: Path) -> None:
    service, site = begin(make, tmp_path, LIB)
    wait_warm(service)
    assert site.importers("lib") == ["template", "base"]
    site.forget()
    for _ in range(3):
        service.reload()
    assert site.importers("lib") + site.importers("lib.part") == []
    assert service.ask("lib.X") == 1
    service.wait_for(lambda: service.log().count("base warm") == 1, 5)


def test_what_a_worker_imports_as_it_starts_is_learnt_too(make: Serve, tmp_path: Path) -> None:
    service, site = begin(make, tmp_path, {**LIB, "late.py": ""})
    wait_warm(service)
    service.edit(AT_WORKER_START, f"{AT_WORKER_START}    import late\n")
    service.reload()
    service.wait_for(lambda: "base" in site.importers("late"), 10)
    assert sorted(site.importers("late")) == ["base", "task-0", "worker-0", "worker-1"]
    wait_warm(service)
    site.forget()
    service.reload()
    assert site.importers("late") == []
    assert service.ask("'late' in __import__('sys').modules") is True


def test_a_start_does_not_wait_for_the_base_to_warm(make: Serve, tmp_path: Path) -> None:
    """It hangs in the base until the test lets it go; a reload meanwhile has the cold one."""
    gate = tmp_path / "gate"
    gate.touch()
    hang = f"import time\nif 'base' in _line[-1]:\n    while os.path.exists({str(gate)!r}):\n"
    service, site = begin(make, tmp_path, {"lib.py": f"{hang}        time.sleep(0.01)\n"})
    service.wait_for(lambda: "base" in site.importers("lib"), 10)
    assert not service.status()["base"]["is_warm"]
    service.reload()
    assert service.ask("lib.__name__") == "lib"
    assert site.importers("lib") == ["template", "base", "template"]
    gate.unlink()
    wait_warm(service)
    service.reload()
    assert site.importers("lib") == ["template", "base", "template"]


def test_off_preloads_nothing(make: Serve, tmp_path: Path) -> None:
    service, site = begin(make, tmp_path, LIB, preload="off")
    service.reload()
    assert site.importers("lib") == ["template", "template"]
    assert [p["role"] for p in service.status()["processes"]].count("base") == 1


def test_named_modules_are_there_before_the_first_generation(make: Serve, tmp_path: Path) -> None:
    service, site = begin(
        make, tmp_path, {**LIB, "other.py": ""}, "import lib, other", preload=["lib"]
    )
    service.reload()
    assert site.importers("lib") == ["base"]
    assert site.importers("other") == ["template", "template"]


@pytest.mark.parametrize("way", ["watch", "reload"])
def test_preload_is_edited_live(make: Serve, tmp_path: Path, way: str) -> None:
    service, site = begin(make, tmp_path, LIB, watch_file=way == "watch")
    wait_warm(service)

    def put(preload: object) -> None:
        service.configure(preload=preload)
        if way == "reload":
            service.reload()

    put("off")
    service.wait_for(lambda: service.status()["base"]["preloaded"] == 0, 10)
    site.forget()
    service.reload()
    assert site.importers("lib") == ["template"]
    put("auto")
    wait_warm(service)
    site.forget()
    service.reload()
    assert site.importers("lib") == []
    put(["lib.part"])
    service.wait_for(lambda: site.importers("lib") == ["base"], 10)
    wait_warm(service)
    assert service.ask("lib.X") == 1


def test_an_import_sees_the_environment_of_its_own_config(make: Serve, tmp_path: Path) -> None:
    reads = {"lib.py": "SEEN = os.environ.get('COLOUR', 'none')\n"}
    service, _ = begin(make, tmp_path, reads)
    for colour in ("red", "blue"):
        wait_warm(service)
        service.configure(env={"COLOUR": colour})
        service.reload()
        assert set(of_each(service, "lib.SEEN").values()) == {colour}
        wait_warm(service)
        service.reload()
        assert service.ask("lib.SEEN") == colour
    service.configure(env={})
    service.reload()
    assert service.ask("lib.SEEN") == "none"
    wait_warm(service)
    service.reload()
    assert service.ask("lib.SEEN") == "none"


def test_a_module_of_the_app_wins_over_what_the_base_holds_under_its_name(
    make: Serve, tmp_path: Path
) -> None:
    """A library, or one of the standard library that nobody but the base has imported."""
    files = {"lib.py": "MINE = 'no'\n", "uses.py": "import csv, shelve\n"}
    service, _ = begin(make, tmp_path, files, "import lib, uses, csv, shelve")
    wait_warm(service)
    assert service.ask("[lib.MINE]") == ["no"]
    for name in ("lib", "csv", "shelve"):
        (service.root / f"{name}.py").write_text(f"MINE = {name!r}\n")
    for _ in range(2):
        service.reload()
        assert service.ask("[lib.MINE, csv.MINE, shelve.MINE]") == ["lib", "csv", "shelve"]
        wait_warm(service)
    for name in ("lib", "csv", "shelve"):
        (service.root / f"{name}.py").unlink()
    service.reload()
    assert service.ask("[lib.MINE, csv.__name__, hasattr(shelve, 'MINE')]") == ["no", "csv", False]


NUMPY = {
    "numpy/__init__.py": "from numpy import random\n",
    "numpy/random.py": (
        "from random import Random\n_state = Random(1)\nfloats = _state.random\n"
        "def seed() -> None:\n    _state.seed(os.urandom(16))\n"
    ),
}
DRAW = "[numpy.random.floats(), random.random(), str(uuid.uuid4())]"


def test_no_two_processes_draw_the_same_random_numbers(make: Serve, tmp_path: Path) -> None:
    service, _ = begin(make, tmp_path, NUMPY, "import numpy, random, uuid", worker_num=3)
    drawn: list[list[object]] = list(of_each(service, DRAW).values())
    wait_warm(service)
    service.reload()
    drawn += of_each(service, DRAW).values()
    drawn.append(service.task(DRAW))
    for _ in range(2):
        end(service, 0)
        drawn += of_each(service, DRAW).values()
    for column in range(3):
        assert len({str(row[column]) for row in drawn}) == len(drawn)


def test_status_tells_the_memory_of_every_process(make: Serve, tmp_path: Path) -> None:
    service, _ = begin(make, tmp_path, LIB)
    wait_warm(service)
    processes = service.status()["processes"]
    assert {p["role"] for p in processes} - {"spare"} == {
        *("base", "template", "worker", "task", "ledger", "logger")
    }
    for process in processes:
        assert 0 < process["pss_bytes"] <= process["rss_bytes"]


def test_a_worker_shares_what_the_base_imported(make: Serve, tmp_path: Path) -> None:
    ballast = {"lib.py": "BALLAST = bytearray(os.urandom(1 << 20) * 48)\n"}
    service, _ = begin(make, tmp_path, ballast, worker_num=4)
    wait_warm(service)
    service.reload()
    workers = service.processes("worker")
    assert all(worker["rss_bytes"] > 48 << 20 for worker in workers)
    assert all(worker["pss_bytes"] < 24 << 20 for worker in workers)
    assert service.ask("len(lib.BALLAST)") == 48 << 20
