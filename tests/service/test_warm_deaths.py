"""Bases that die, by whose fault ever: the service goes on, and a reload is right or refused."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import pytest

from bench.load import Load, Plan
from tests.service import leftovers
from tests.service.conftest import Serve
from tests.service.daemon import Service, pause, scaled
from tests.service.site import IN_BASE, Site, begin, wait_warm

LIB = {"lib.py": "X = 1\n", "other.py": "", "user.py": ""}
IMPORTS = "import lib, other"


def bases(service: Service) -> list[int]:
    return [p["pid"] for p in service.status()["processes"] if p["role"] == "base"]


def gate(folder: Path) -> tuple[Path, str]:
    """A file, and the code of a library that hangs in the base while the file is there."""
    path = folder / "gate"
    loop = f"import time\n{IN_BASE}while os.path.exists({str(path)!r}):\n        time.sleep(0.01)\n"
    return path, loop


def warm_again(service: Service, site: Site) -> None:
    service.reload()
    wait_warm(service)
    site.forget()
    service.reload()
    assert site.importers("lib") == []
    assert service.ask("lib.X") == 1
    assert len(bases(service)) == 1
    assert leftovers.zombies(service.master) == set()


@pytest.mark.parametrize("role", ["base", "template"])
def test_one_that_is_killed_when_all_is_warm_is_replaced(
    make: Serve, tmp_path: Path, role: str
) -> None:
    service, site = begin(make, tmp_path, LIB, IMPORTS)
    wait_warm(service)
    seats = service.seats()
    victim = service.pids(role)[0]
    service.kill(victim)
    service.wait_for(lambda: service.pids(role) not in ([], [victim]), 10)
    wait_warm(service)  # by itself: nobody has to reload for it
    assert service.seats() == seats
    warm_again(service, site)


def test_the_one_that_warms_is_killed(make: Serve, tmp_path: Path) -> None:
    path, loop = gate(tmp_path)
    path.touch()
    service, site = begin(make, tmp_path, {**LIB, "other.py": loop}, IMPORTS)
    service.wait_for(lambda: len(bases(service)) == 2, 10)
    service.wait_for(lambda: "base" in site.importers("other"), 10)
    service.kill(max(bases(service)))
    path.unlink()
    wait_warm(service)
    assert service.status()["base"]["left_out"] == {}
    warm_again(service, site)


def test_the_cold_one_is_killed_while_the_other_warms(make: Serve, tmp_path: Path) -> None:
    path, loop = gate(tmp_path)
    path.touch()
    service, site = begin(make, tmp_path, {**LIB, "other.py": loop}, IMPORTS)
    service.wait_for(lambda: "base" in site.importers("other"), 10)
    service.kill(min(bases(service)))
    service.reload()
    assert service.ask("lib.X") == 1
    path.unlink()
    warm_again(service, site)


@pytest.mark.heavy
@pytest.mark.parametrize("role", ["base", "template"])
def test_a_reload_survives_the_death_of_any_base_at_any_moment(
    make: Serve, tmp_path: Path, role: str
) -> None:
    """A template's death may refuse it: it is the app's that died. No request fails."""
    service, site = begin(make, tmp_path, LIB, IMPORTS)
    wait_warm(service)
    with Load(service.address, Plan(new=2, kept=1, rest=0.01)) as load:
        for number in range(scaled(100)):
            done = service.status()["generation"]
            kill_while_it_boots(service, role, delay=0.002 * (number % 20))
            service.wait_for(lambda: service.status()["reload"]["state"] != "booting", 15)
            if role == "base":
                assert service.status()["generation"] == done + 1
        asked = load.tally.ok
        service.wait_for(lambda: load.tally.ok > asked + 20, 10)
    assert load.tally.failures == []
    warm_again(service, site)


def kill_while_it_boots(service: Service, role: str, delay: float) -> None:
    """Have it reload, and kill all of *role*, that boots or stands, some time later."""
    before = service.log().count("generation booting")
    service.kill(service.master, signal.SIGHUP)
    service.wait_for(lambda: service.log().count("generation booting") > before, 5)
    pause(delay)
    for pid in service.alive():
        with suppress(OSError):  # it has just gone
            if Path(f"/proc/{pid}/comm").read_text() == f"procd: {role}\n":
                service.kill(pid)


DEATHS = {
    "segfault": "__import__('ctypes').string_at(0)",
    "exit": "os._exit(3)",
    "interrupt": "raise KeyboardInterrupt",
}


@pytest.mark.parametrize("how", DEATHS)
def test_a_library_that_ends_the_base_is_left_out_and_named(
    make: Serve, tmp_path: Path, how: str
) -> None:
    files = {**LIB, "bad/__init__.py": "import bad.inner\n", "bad/inner.py": IN_BASE + DEATHS[how]}
    service, site = begin(make, tmp_path, files, "import lib, bad, other")
    wait_warm(service)
    assert list(service.status()["base"]["left_out"]) == ["bad"]
    service.wait_for(lambda: service.log().count("not preloaded") == 1, 5)
    for _ in range(3):
        service.reload()
        wait_warm(service)
    service.wait_for(lambda: service.log().count("not preloaded") == 1, 5)
    assert site.importers("bad").count("base") <= 2
    assert site.importers("lib").count("template") == 1
    assert site.importers("bad.inner").count("template") == 4
    assert len(bases(service)) == 1
    assert "not preloaded: bad" in service.ok("status").stdout


@pytest.mark.parametrize("how", ["raise RuntimeError", "import sys; sys.exit(3)"])
def test_a_library_that_fails_in_the_base_alone_is_imported_by_each_template(
    make: Serve, tmp_path: Path, how: str
) -> None:
    service, site = begin(
        make, tmp_path, {**LIB, "bad.py": IN_BASE + how}, "import lib, bad, other"
    )
    wait_warm(service)
    site.forget()
    for _ in range(2):
        service.reload()
        wait_warm(service)
    assert site.importers("bad") == ["template", "template"]
    assert site.importers("lib") == []
    service.wait_for(lambda: service.log().count("base warm") == 1, 5)


def test_a_library_that_never_ends_in_the_base_is_left_out(make: Serve, tmp_path: Path) -> None:
    bad = f"import time\n{IN_BASE}while True:\n        time.sleep(0.01)\n"
    service, site = begin(
        make, tmp_path, {**LIB, "bad.py": bad}, "import lib, bad, other", boot_timeout=1
    )
    service.reload()
    wait_warm(service, 30)
    assert list(service.status()["base"]["left_out"]) == ["bad"]
    assert site.importers("bad").count("base") == 1
    service.reload()
    wait_warm(service)
    assert site.importers("bad").count("base") == 1
    assert len(bases(service)) == 1


def test_a_named_library_that_ends_the_base_does_not_keep_the_service_from_its_start(
    make: Serve, tmp_path: Path
) -> None:
    files = {**LIB, "bad.py": IN_BASE + DEATHS["exit"]}
    service, _ = begin(make, tmp_path, files, "import lib, bad", preload=["lib", "bad"])
    assert service.ask("lib.X") == 1
    wait_warm(service)
    assert list(service.status()["base"]["left_out"]) == ["bad"]
    service.wait_for(lambda: service.log().count("not preloaded") == 1, 5)
