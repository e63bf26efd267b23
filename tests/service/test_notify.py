"""What systemd is told, and when: the service's own words on $NOTIFY_SOCKET."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service


class Systemd:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, service: Service) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = str(service.root / "notify")
        self.socket.bind(path)
        service.extra_environment["NOTIFY_SOCKET"] = path

    def told(self, word: str, seconds: float = 10) -> dict[str, str]:
        """Wait for a datagram that has *word* as a key, and return its lines."""
        deadline = time.monotonic() + seconds
        while True:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            lines = self.socket.recv(4096).decode().splitlines()
            found = {key: value for key, _, value in (line.partition("=") for line in lines)}
            if word in found:
                return found

    def hears(self, word: str, seconds: float) -> bool:
        try:
            return bool(self.told(word, seconds))
        except TimeoutError:
            return False


@pytest.fixture
def service(make: Serve) -> Service:
    return make(watch_file=True, max_wait_time=7, boot_timeout=11)


@pytest.fixture
def systemd(service: Service) -> Iterator[Systemd]:
    listening = Systemd(service)
    yield listening
    listening.socket.close()
    (service.root / "notify").unlink()


def test_a_start_a_reload_and_a_stop_are_told_with_their_time(
    service: Service, systemd: Systemd
) -> None:
    service.start_foreground()
    assert systemd.told("EXTEND_TIMEOUT_USEC")["EXTEND_TIMEOUT_USEC"] == "16000000"
    assert systemd.told("READY") == {"READY": "1", "STATUS": "generation 1 serves"}
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    service.reload()
    began = systemd.told("RELOADING")
    assert int(began["MONOTONIC_USEC"]) >= before
    assert systemd.told("READY")["STATUS"] == "generation 2 serves"
    service.stop()
    stopping = systemd.told("STOPPING")
    assert 7_000_000 < int(stopping["EXTEND_TIMEOUT_USEC"]) <= 12_000_000


def test_a_refusal_of_code_and_of_config_is_ready_too_and_says_why(
    service: Service, systemd: Systemd
) -> None:
    service.start_foreground()
    systemd.told("READY")
    service.configure(wroker_num=3)
    systemd.told("RELOADING")
    assert "did you mean worker_num" in systemd.told("READY")["STATUS"]
    del service.config["wroker_num"]
    service.configure()
    assert systemd.told("READY")["STATUS"] == "generation 1 serves"
    service.edit("def spin()", "def (")
    systemd.told("RELOADING")
    told = systemd.told("READY")["STATUS"]
    assert told.startswith("generation 1 serves; reload refused: ")
    assert "SyntaxError" in told


def test_watchdog_is_fed_while_the_loop_turns_and_a_worker_is_there(
    service: Service, systemd: Systemd
) -> None:
    service.extra_environment["WATCHDOG_USEC"] = "1500000"
    service.start_foreground()
    systemd.told("READY")
    for _ in range(3):
        systemd.told("WATCHDOG", 2)
    service.reload()
    systemd.told("WATCHDOG", 2)
    service.kill(service.master, signal.SIGSTOP)
    while systemd.hears("WATCHDOG", 1):
        pass  # those that were under way
    service.kill(service.master, signal.SIGCONT)
    systemd.told("WATCHDOG", 2)


def test_nobody_is_fed_who_has_not_asked_for_it(service: Service, systemd: Systemd) -> None:
    service.extra_environment |= {"WATCHDOG_USEC": "300000", "WATCHDOG_PID": "1"}
    service.start_foreground()
    systemd.told("READY")
    assert not systemd.hears("WATCHDOG", 0.5)
