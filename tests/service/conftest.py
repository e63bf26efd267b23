"""Fixtures of the service tests: a service a test, stopped and proven gone at its end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from procd.ipc import Queue
from tests.kernel.queues import free_key
from tests.service import leftovers
from tests.service.daemon import Service
from tests.service.ingress import Foreign

Serve = Callable[..., Service]

_services: list[Service] = []  # of the test that runs now, for its failure report


@pytest.fixture(scope="session", autouse=True)
def own_queues() -> None:
    """A queue that is left behind is then surely ours."""
    leftovers.unshare_queues()


@pytest.fixture
def make() -> Iterator[Serve]:
    """Services that are not started yet; the arguments are those of Service."""
    _services.clear()

    def write(app: str = "repl.py", **config: Any) -> Service:
        _services.append(Service(app, **config))
        return _services[-1]

    yield write
    failures = []
    for service in _services:
        try:
            service.close()
        except Exception as error:  # noqa: BLE001 - every service is ended, whatever the first left
            failures.append(error)
    if failures:
        raise failures[0]


@pytest.fixture
def serve(make: Serve) -> Serve:
    """Services that run in the background; the arguments are those of Service."""

    def start(app: str = "repl.py", **config: Any) -> Service:
        return make(app, **config).start()

    return start


@pytest.fixture
def foreign(serve: Serve) -> Foreign:
    """Services that hear foreign programs, with their public queue, which has a key of its own."""

    def start(app: str = "foreign.py", **config: Any) -> tuple[Service, Queue]:
        key = free_key()
        return serve(app, message_queue_key=key, **config), Queue.open(key)

    return start


@pytest.fixture
def begin(serve: Serve) -> Serve:
    """Services whose config is edited; the first argument is by which way: watch, reload."""

    def start(way: str, **config: Any) -> Service:
        return serve(watch_file=way == "watch", task_worker_num=1, **config)

    return start


@pytest.fixture
def service(serve: Serve) -> Service:
    """A service as most tests want it: apps/repl.py, two workers, two task workers."""
    return serve()


@pytest.fixture(scope="module")
def of_the_module() -> Iterator[Service]:
    """One service for all tests of a file that only ask and never break it."""
    service = Service()
    try:
        yield service.start()
    except BaseException:
        service.destroy()
        raise
    service.close()


@pytest.fixture
def shared(of_the_module: Service) -> Service:
    """The file's service, with an empty ledger. For a test that leaves it as it found it."""
    _services[:] = [of_the_module]
    of_the_module.ledger_path.unlink(missing_ok=True)
    return of_the_module


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,  # noqa: ARG001 - the hook's signature
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.when == "call":
        for service in _services:
            report.sections.append((f"log of {service.root}", service.log()[-6000:]))
    return report
