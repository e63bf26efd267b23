"""A loop that stands still: found, shown, replaced in time; what only takes long is left alone."""

from __future__ import annotations

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service

SECONDS = 1  # hang_timeout
WITHIN = 2.0  # after it the successor serves

# How a handler keeps its loop: in Python's own code, in a call that waits, in C with the GIL held.
STUCK = {
    "while": "loop_for_ever()",
    "sleep": "time.sleep(1e9)",
    "regex": "__import__('re').match(r'(a+)+$', 'a' * 64 + 'b')",
    "sum": "spin()",
}
LOOP = """
def loop_for_ever() -> None:
    while True:
        pass


def spin() -> int:"""


def hanging(make: Serve, **config: object) -> Service:
    service = make(hang_timeout=SECONDS, **config)
    service.edit("\ndef spin() -> int:", LOOP)
    return service


def is_replaced(service: Service, victim: int) -> bool:
    seats = service.seats()
    return len(seats) == 4 and victim not in seats


@pytest.mark.parametrize("how", STUCK)
def test_loop_that_stands_still_is_replaced_in_time_and_its_stack_logged(
    make: Serve, how: str
) -> None:
    service = hanging(make).start()
    with service.connect() as client:
        victim = client.ask("os.getpid()")
        assert client.ask("VERSION") == "1"
        client.post(STUCK[how])
        service.wait_for(lambda: is_replaced(service, victim), SECONDS + WITHIN)
        assert client.is_closed(2)
    log = service.log()
    assert "Fatal Python error: Aborted" in log
    assert "in evaluate" in log.partition("Fatal Python error")[2]
    assert "by=SIGABRT" in log
    assert service.ask("VERSION") == "1"


def test_app_that_takes_the_signal_for_itself_is_killed_all_the_same(make: Serve) -> None:
    service = hanging(make).start()
    with service.connect() as client:
        victim = client.ask("os.getpid()")
        client.ask("__import__('signal').signal(6, lambda *_: None) and 0")
        client.post("time.sleep(1e9)")
        service.wait_for(lambda: is_replaced(service, victim), SECONDS + WITHIN)
    service.wait_for(lambda: "by=SIGKILL" in service.log(), 5)


def test_what_takes_long_but_lets_the_loop_turn_is_left_alone(make: Serve) -> None:
    service = hanging(make).start()
    before = service.seats()
    long = 3 * SECONDS
    with service.connect() as waiting, service.connect() as computing:
        waiting.post(f"await slowly({long})")
        assert computing.ask(f"await server.task('blocking({long})')")["is_task_worker"]
        assert waiting.read_answer()["version"] == "1"
    assert service.seats() == before


def test_worker_that_starts_for_longer_than_that_is_left_to_the_boot_timeout(make: Serve) -> None:
    service = hanging(make)
    service.edit('    counts["started"] += 1', f"    time.sleep({2 * SECONDS})")
    service.start()
    assert service.ask("VERSION") == "1"
    assert "Aborted" not in service.log()


def test_null_lets_a_loop_stand_still(make: Serve) -> None:
    service = hanging(make).start()
    service.configure(hang_timeout=None)
    service.reload()
    assert service.ask(f"time.sleep({2 * SECONDS}) or os.getpid()") in service.seats()
