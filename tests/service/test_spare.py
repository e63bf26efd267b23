"""The spare: forked ahead of the next template, and never in anybody's way."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service, pause, scaled


def spare(service: Service) -> int:
    """Wait for the spare; its pid."""
    return service.wait_for(lambda: service.pids("spare"), 5, "a spare")[0]


@pytest.mark.short
def test_it_becomes_the_next_template_and_another_one_is_forked(service: Service) -> None:
    first = spare(service)
    service.edit('VERSION = "1"', 'VERSION = "2"')
    service.reload()
    assert service.pids("template") == [first]
    assert service.ask("VERSION") == "2"
    assert spare(service) != first


def test_one_that_is_killed_is_replaced_and_nobody_notices(service: Service) -> None:
    seats = service.seats()
    seen = set()
    for _ in range(3):
        pid = spare(service)
        seen.add(pid)
        service.kill(pid)
        service.wait_for_end(pid, 2)
    assert spare(service) not in seen
    service.reload()
    assert service.status()["generation"] == 2
    assert set(service.seats()).isdisjoint(seats)


def test_a_template_that_is_born_again_is_the_spare_with_the_code_of_its_generation(
    service: Service,
) -> None:
    first = spare(service)
    (template,) = service.pids("template")
    service.app_path.write_text("def (:\n")
    service.kill(template)
    service.wait_for(lambda: service.pids("template") == [first], 5)
    for pid in service.seats():
        service.kill(pid)
        service.wait_for_end(pid, 2)
    service.wait_for(lambda: len(service.seats()) == 4, 10)
    assert service.ask("VERSION") == service.task("VERSION") == "1"


def test_a_base_that_hangs_when_it_should_fork_one_is_replaced_and_no_template(
    serve: Serve,
) -> None:
    service = serve(boot_timeout=1.5)  # four of them are a spare's time: longer than any fork
    pid = spare(service)
    (base,), (template,) = service.pids("base"), service.pids("template")
    service.kill(base, signal.SIGSTOP)
    service.kill(pid)
    service.wait_for_end(base, 15)
    assert spare(service) != pid
    assert service.pids("template") == [template]
    service.reload()
    assert service.status()["generation"] == 2


@pytest.mark.heavy
def test_killed_at_any_moment_of_a_reload_it_costs_none(serve: Serve) -> None:
    """The kill comes before, while and after it is taken: the reload comes about all the same."""
    service = serve(boot_timeout=10)
    for number in range(2, max(6, scaled(60)) + 2):
        pid = spare(service)
        service.edit(f'VERSION = "{number - 1}"', f'VERSION = "{number}"')
        command = subprocess.Popen(
            service.argv("reload"),
            env=service.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        pause(0.1 + number % 12 * 0.008)  # the command takes 0.12 s to ask
        service.kill(pid)
        text = command.communicate(timeout=30)[1]
        if command.returncode:  # it was the template by then: that is a refusal like any other
            assert "SIGKILL" in text
            service.reload()
        assert service.ask("VERSION") == str(number)


def test_a_stop_and_a_refusal_leave_none_behind(serve: Serve) -> None:
    """What stays is proven by the fixture."""
    service = serve()
    spare(service)
    service.edit("def blocking", "raise ValueError\n\n\ndef blocking")
    assert service.run("reload").returncode == 1
    pid = spare(service)
    service.stop()
    service.wait_for_end(pid, 2)
