"""What an import leaves open is found and named, and what a base preloads is what the app meant."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from procd.spawn.fitness import inspected
from procd.spawn.preload import preload, unhide, used
from procd.spawn.territory import Territory
from tests.kernel.forked import outcome

THREAD = (
    "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
)
SOCKET = "import socket\nkept = socket.socketpair()\n"
EPOLL = "import select\nalso_kept = select.epoll()\n"
JOINED = "import threading\nt = threading.Thread(target=print)\nt.start(); t.join()\n"
CLOSED = "import socket\nsocket.socket().close()\n"


def found(folder: Path, first: str = "") -> object:
    """Import the module `lib` of *folder* in a process of its own; what Inspection says."""

    def body() -> object:
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        if first:
            __import__(first)
        with inspected("the app") as inspection:
            module = __import__("lib")
        loaders = {type(module.__loader__), type(getattr(module.__spec__, "loader", None))}
        assert loaders == {SourceFileLoader}, "as if nobody had looked"
        return inspection.unfit()

    return eval(outcome(body))  # noqa: S307 - repr of our own


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (THREAD, {"lib": "thread"}),
        (THREAD * 2, {"lib": "2 threads"}),
        (SOCKET, {"lib": "2 sockets"}),
        (EPOLL, {"lib": "epoll"}),
        (EPOLL + SOCKET + THREAD, {"lib": "epoll, 2 sockets, thread"}),
        (JOINED, {}),
        (CLOSED, {}),
        ("x = open('/dev/null')\n", {}),
        ("import asyncio\nloop = asyncio.new_event_loop()\n", {"lib": "epoll, 2 sockets"}),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_an_import_leaves_open_is_found(tmp_path: Path, source: str, told: object) -> None:
    (tmp_path / "lib.py").write_text(source)
    assert found(tmp_path) == told


def test_the_innermost_module_is_named(tmp_path: Path) -> None:
    (tmp_path / "lib.py").write_text("import inner\n" + SOCKET)
    (tmp_path / "inner.py").write_text(THREAD + "import innermost\n")
    (tmp_path / "innermost.py").write_text(EPOLL)
    assert found(tmp_path) == {"lib": "2 sockets", "inner": "thread", "innermost": "epoll"}


def test_what_was_open_before_is_no_fault_of_the_import(tmp_path: Path) -> None:
    (tmp_path / "before.py").write_text(THREAD + SOCKET)
    (tmp_path / "lib.py").write_text("x = 1\n")
    assert found(tmp_path, first="before") == {}


def test_threads_of_a_blas_pool_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text(THREAD)
    (tmp_path / "lib.py").write_text("import numpy\n")
    assert found(tmp_path) == {}


# ---------------------------------------------------------------- preload


def preloaded(body: Callable[[], object]) -> object:
    """Run *body* in a process of its own, without bytecode of the test's modules."""

    def quietly() -> object:
        sys.dont_write_bytecode = True
        return body()

    return eval(outcome(quietly))  # noqa: S307 - repr of our own


def packages(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of an app and one of third-party modules, the latter on sys.path."""
    app, site = tmp_path / "app", tmp_path / "site"
    app.mkdir()
    site.mkdir()
    return app, site


def test_a_module_is_preloaded_only_from_the_file_that_the_app_had_it_from(tmp_path: Path) -> None:
    app, site = packages(tmp_path)
    for name in ("mine", "other"):
        (site / f"{name}.py").write_text("x = 1\n")
    wanted = {
        "mine": str(site / "mine.py"),
        "other": "/somewhere/else/other.py",
        "gone": "/gone.py",
    }

    def body() -> object:
        sys.path.insert(0, str(site))
        done = preload(wanted, app)
        return sorted(done.names), sorted(done.prints), done.culprit

    assert preloaded(body) == (["mine"], [str(site / "mine.py")], "")


def test_no_word_of_the_app_is_run(tmp_path: Path) -> None:
    """Though its folder is first on sys.path, and a library imports a module of that name."""
    app, site = packages(tmp_path)
    (app / "statistics_of_mine.py").write_text("raise SystemExit('app code in the base')\n")
    (site / "lib.py").write_text("try:\n import statistics_of_mine\nexcept ImportError:\n pass\n")

    def body() -> object:
        sys.path[:0] = [str(app), str(site)]
        before = list(sys.path)
        done = preload({"lib": str(site / "lib.py")}, app)
        return sorted(done.names), sys.path == before

    assert preloaded(body) == (["lib"], True)


def test_a_change_of_what_was_read_is_seen(tmp_path: Path) -> None:
    app, site = packages(tmp_path)
    path = site / "lib.py"
    path.write_text("x = 1\n")

    def body() -> object:
        sys.path.insert(0, str(site))
        done = preload({"lib": None}, app)
        before = done.changed()
        fresh = site / "lib.new"
        fresh.write_text("x = 2\n")
        fresh.rename(path)
        return before, done.changed()

    assert preloaded(body) == (None, str(path))


def test_the_first_that_is_unfit_ends_it_and_is_named(tmp_path: Path) -> None:
    app, site = packages(tmp_path)
    (site / "fine.py").write_text("x = 1\n")
    (site / "outer.py").write_text("import starter\n")
    (site / "starter.py").write_text(THREAD)
    (site / "last.py").write_text("x = 1\n")

    def body() -> object:
        sys.path.insert(0, str(site))
        done = preload(dict.fromkeys(("fine", "outer", "last")), app)
        return done.culprit, done.why, "last" in sys.modules

    assert preloaded(body) == ("outer", "starter opened thread", False)


def test_one_that_fails_is_left_out_and_the_rest_is_there(tmp_path: Path) -> None:
    app, site = packages(tmp_path)
    (site / "bad.py").write_text("raise RuntimeError('no')\n")
    (site / "worse.py").write_text("raise SystemExit\n")
    (site / "good.py").write_text("x = 1\n")

    def body() -> object:
        sys.path.insert(0, str(site))
        return sorted(preload(dict.fromkeys(("bad", "worse", "good")), app).names)

    assert preloaded(body) == ["good"]


def test_what_the_app_used_is_told_in_order_and_without_its_own_modules(tmp_path: Path) -> None:
    app, site = packages(tmp_path)
    (app / "own.py").write_text("import outer\n")
    (site / "outer.py").write_text("import inner\n")
    (site / "inner.py").write_text(
        "import sys\nsys.modules['alias_of_inner'] = sys.modules['inner']\n"
    )

    def body() -> object:
        sys.path[:0] = [str(app), str(site)]
        count = len(sys.modules)
        __import__("own")
        return list(used(count, Territory(str(app))).items())

    expected = [(name, str(site / f"{name}.py")) for name in ("inner", "outer")]
    assert preloaded(body) == expected


def test_a_module_of_the_app_comes_before_a_preloaded_one_of_its_name(tmp_path: Path) -> None:
    app, site = packages(tmp_path)
    (site / "shared").mkdir()
    (site / "shared" / "__init__.py").write_text("WHERE = 'site'\n")
    (site / "shared" / "part.py").write_text("")
    (site / "kept.py").write_text("WHERE = 'site'\n")
    (app / "shared.py").write_text("WHERE = 'app'\n")
    (app / "kept").mkdir()  # a folder of data hides no module

    def body() -> object:
        sys.path.insert(0, str(site))
        done = preload(dict.fromkeys(("shared", "shared.part", "kept")), app)
        sys.path.insert(0, str(app))
        unhide(done.packages, Territory(str(app)))
        places = [__import__(name).WHERE for name in ("shared", "kept")]
        return places, "shared.part" in sys.modules

    assert preloaded(body) == (["app", "site"], False)


def test_a_preload_leaves_cwd_and_signals_as_they_were(tmp_path: Path) -> None:
    app, site = packages(tmp_path)
    (site / "rude.py").write_text(
        "import os, signal\nos.chdir('/')\nsignal.signal(signal.SIGTERM, print)\n"
    )

    def body() -> object:
        os.chdir(tmp_path)
        sys.path.insert(0, str(site))
        preload({"rude": None}, app)
        return os.getcwd()

    assert preloaded(body) == str(tmp_path)
