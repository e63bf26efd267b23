"""An import that opens what no fork can share: named once, and each process imports for itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service
from tests.service.site import NOTE, begin, end, of_each, wait_warm

# As grpc does it: by native code, unseen by `threading`; and it is not in a forked process.
NATIVE = """
import ctypes
_c = ctypes.CDLL(None)
_thread = ctypes.c_ulong()
_body = ctypes.cast(_c.pause, ctypes.c_void_p)
assert _c.pthread_create(ctypes.byref(_thread), None, _body, None) == 0
"""
PYTHON = """
import threading
wake, done = threading.Semaphore(0), threading.Semaphore(0)
def _serve():
    while wake.acquire():
        done.release()
threading.Thread(target=_serve, daemon=True).start()
def works():
    wake.release()
    return done.acquire(timeout=5)
"""
LOOP = "import asyncio\nloop = asyncio.new_event_loop()\n"
CONNECTS = "import socket\nkept = socket.create_connection(('127.0.0.1', {port}))\n"
# Not the kernel's own: uvloop has an io_uring, whose work may get a thread for a moment.
NAMES = "[open(f'/proc/self/task/{each}/comm').read() for each in os.listdir('/proc/self/task')]"
THREADS = f"sum(not name.startswith('iou-') for name in {NAMES})"
PLAIN = {"plain.py": ""}


@pytest.fixture
def database() -> Iterator[int]:
    """The port of a listener that takes whoever comes, by the kernel."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener, ExitStack() as stack:
        yield listener.getsockname()[1]
        listener.setblocking(False)
        while True:
            try:
                stack.enter_context(listener.accept()[0])
            except BlockingIOError:
                break


def unfit(service: Service) -> str:
    return service.status()["base"]["unfit"] or ""


def reload_five_times(service: Service) -> None:
    for _ in range(5):
        service.reload()
        assert service.ask("VERSION") == "1"


@pytest.mark.parametrize("where", ["app", "library", "nested"])
@pytest.mark.parametrize("source", [NATIVE, PYTHON], ids=["native", "python"])
def test_threads_of_an_import_live_in_every_process(
    make: Serve, tmp_path: Path, where: str, source: str
) -> None:
    files = {**PLAIN, "starts.py": source, "outer/__init__.py": "import starts\n"}
    imports = {"app": NOTE + source, "library": "import starts", "nested": "import outer"}[where]
    service, site = begin(make, tmp_path, files, f"import plain\n{imports}", worker_num=2)
    culprit = "app" if where == "app" else "starts"
    for _ in range(2):
        assert set(of_each(service, THREADS).values()) == {2}
        assert service.task(THREADS) == 2
        service.reload()
    assert unfit(service) == f"{culprit} opened thread"
    wait_warm(service)
    left_out = {"app": [], "library": ["starts"], "nested": ["starts", "outer"]}[where]
    assert list(service.status()["base"]["left_out"]) == left_out
    reload_five_times(service)
    service.wait_for(
        lambda: service.log().count("not fit to be forked: each process imports") == 1, 5
    )
    service.wait_for(lambda: service.log().count("not preloaded") == len(left_out), 5)
    assert site.importers("plain").count("template") == 1
    assert culprit in service.ok("status").stdout


def test_a_thread_of_an_import_works_in_every_process(make: Serve, tmp_path: Path) -> None:
    service, _ = begin(make, tmp_path, {"starts.py": PYTHON}, "import starts")
    for _ in range(2):
        assert set(of_each(service, "starts.works()").values()) == {True}
        assert service.task("starts.works()") is True
        service.reload()


@pytest.mark.parametrize("where", ["app", "library"])
def test_each_process_has_a_connection_of_its_own(
    make: Serve, tmp_path: Path, database: int, where: str
) -> None:
    source = CONNECTS.format(port=database)
    files = {**PLAIN, "pool.py": source}
    imports = (
        f"import sys\n{source}pool = sys.modules[__name__]" if where == "app" else "import pool"
    )
    service, _ = begin(make, tmp_path, files, f"import plain\n{imports}", worker_num=3)
    port = "pool.kept.getsockname()[1]"
    ports = [*of_each(service, port).values(), service.task(port)]
    service.reload()
    ports += [*of_each(service, port).values(), service.task(port)]
    assert len(set(ports)) == 8
    name = "app" if where == "app" else "pool"
    assert unfit(service) == f"{name} opened socket"
    reload_five_times(service)
    service.wait_for(
        lambda: service.log().count("not fit to be forked: each process imports") == 1, 5
    )


@pytest.mark.parametrize("where", ["app", "library"])
def test_each_process_has_an_event_loop_of_its_own(make: Serve, tmp_path: Path, where: str) -> None:
    files = {**PLAIN, "looping.py": LOOP}
    imports = LOOP if where == "app" else "import looping"
    service, _ = begin(make, tmp_path, files, f"import plain\n{imports}")
    name = "app" if where == "app" else "looping"
    assert unfit(service) == f"{name} opened epoll, 2 sockets"
    reload_five_times(service)
    service.wait_for(
        lambda: service.log().count("not fit to be forked: each process imports") == 1, 5
    )


def test_one_that_is_killed_comes_back_with_the_code_of_its_generation(
    make: Serve, tmp_path: Path
) -> None:
    """Whatever the disk holds by then: each process imports, but what was imported at first."""
    service, _ = begin(make, tmp_path, {"starts.py": PYTHON}, "import starts")
    service.app_path.write_text("def broken(")
    for seat in (0, 2):
        end(service, seat)
    assert list(of_each(service, "[VERSION, starts.works()]").values()) == [["1", True]] * 2
    assert service.task("starts.works()") is True


def test_an_edit_that_removes_the_import_lets_the_app_be_shared_again(
    make: Serve, tmp_path: Path
) -> None:
    service, _ = begin(
        make,
        tmp_path,
        {**PLAIN, "starts.py": PYTHON},
        "import plain\nimport starts",
        watch_file=True,
    )
    assert unfit(service)
    service.edit("import plain\nimport starts", f"import plain\n{NOTE}")
    service.wait_for(lambda: not unfit(service), 10)
    assert [row[2] for row in service.ledger("import") if row[0] == "app"] == ["procd: template"]
    service.edit("import plain\n", "import plain\nimport starts\n")
    service.wait_for(lambda: unfit(service) == "starts opened thread", 10)
    assert set(of_each(service, "starts.works()").values()) == {True}


def test_a_named_package_that_is_unfit_does_not_keep_the_service_from_its_start(
    make: Serve, tmp_path: Path
) -> None:
    service, site = begin(
        make,
        tmp_path,
        {**PLAIN, "starts.py": PYTHON},
        "import plain\nimport starts",
        preload=["plain", "starts"],
    )
    base = service.status()["base"]
    assert (list(base["left_out"]), base["is_warm"], base["preloaded"]) == (["starts"], True, 1)
    assert set(of_each(service, "starts.works()").values()) == {True}
    assert site.importers("plain") == ["base", "base"]  # the second without the other
