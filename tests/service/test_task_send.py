"""`procd task send`: one task from a shell, and its result."""

from __future__ import annotations

import json

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service


def test_an_accepted_task_is_told_by_its_id_and_runs(shared: Service) -> None:
    done = shared.ok("task", "send", "app.ran", "7")
    word, number = done.stdout.split()
    assert (word, int(number) > 0) == ("accepted", True)
    shared.wait_for(lambda: shared.runs() == {7: 1}, 10)
    assert json.loads(shared.ok("task", "send", "app.ran", "8", "--json").stdout).keys() == {"id"}


@pytest.mark.parametrize(
    ("args", "result"),
    [
        (["1"], "1"),
        (["text"], "text"),
        (['"7"'], "7"),
        (["[1, 2.5, null]"], "[1, 2.5, null]"),
        (['{"n": true}'], '{"n": true}'),
        (["--", "-1"], "-1"),
    ],
)
def test_arguments_are_json_or_text(shared: Service, args: list[str], result: str) -> None:
    assert shared.ok("task", "send", "--wait", "app.same", *args).stdout == f"{result}\n"


def test_a_result_is_json_for_programs(shared: Service) -> None:
    done = shared.ok("task", "send", "app.add", "40", "2", "--wait", "--timeout", "10", "--json")
    found = json.loads(done.stdout)
    assert found["result"]["sum"] == 42
    assert found["id"] > 0


def test_what_goes_wrong_is_said_without_a_traceback_of_procds(shared: Service) -> None:
    failed = shared.run("task", "send", "app.broken", "not good", "--wait")
    assert failed.returncode == 1
    assert "in broken" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("procd: ValueError: not good")
    unknown = shared.run("task", "send", "app.nope", "--wait")
    assert unknown.stderr == "procd: this generation of the app has no task 'app.nope'\n"
    late = shared.run("task", "send", "app.nap", "0.5", "--wait", "--timeout", "0.01")
    assert (late.returncode, late.stderr) == (1, "procd: no result within 0.01 s\n")
    useless = shared.run("task", "send", "app.add", "--timeout", "1")
    assert (useless.returncode, "--wait" in useless.stderr) == (2, True)


def test_a_service_that_does_not_run_is_status_three(make: Serve) -> None:
    service = make()
    done = service.run("task", "send", "app.add", "1")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"procd: no procd runs for {service.config_path}\n"
