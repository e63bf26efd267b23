"""procd why: which files, how long each step took, and what was wrong, in status and in the log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service
from tests.service.ragged import held

STEPS = ["import", "fork", "ready", "switch", "drain"]
GOOD = re.compile(r"reloaded in (\d+) ms: (.+) \(generation (\d+)\)")
LINE = "def blocking(seconds: float)"
HOOK = "@server.on_worker_start\ndef refuse() -> None:\n    raise ValueError('no database')\n\n\n"


@pytest.fixture
def parted(make: Serve) -> Service:
    """An app of three files, saved into by the tests; it imports `one` before `two`."""
    service = make(watch_file=True, task_worker_num=1)
    service.edit("import ast\n", "import ast\nimport one\nimport two\n")
    for name in ("one", "two"):
        module(service, name, "NAME = 'first'\n")
    return service.start()


def module(service: Service, name: str, text: str) -> Path:
    path = service.root / f"{name}.py"
    path.write_text(text)
    return path


def reload_of(service: Service) -> dict[str, Any]:
    """What status says of the last reload; more than the interface promises."""
    found: dict[str, Any] = dict(service.status()["reload"])
    return found


def refused(service: Service) -> dict[str, Any]:
    service.wait_for(lambda: reload_of(service)["state"] == "refused", 10)
    return reload_of(service)


@pytest.mark.short
def test_status_tells_the_files_and_how_long_each_step_took(parted: Service) -> None:
    module(parted, "two", "NAME = 'second'\n")
    parted.wait_for(lambda: parted.ask("two.NAME") == "second", 10)
    parted.wait_for(lambda: "drain" in (reload_of(parted)["steps"] or ()), 10)
    told = reload_of(parted)
    assert told["cause"] == ["two.py"]
    assert list(told["steps"]) == STEPS
    assert all(seconds >= 0 for seconds in told["steps"].values())
    until_served = sum(told["steps"][step] for step in STEPS[:-1])
    assert told["seconds"] == pytest.approx(until_served, abs=0.001)  # each is rounded
    assert told["refusal"] is None
    text = parted.ok("status").stdout
    assert re.search(r"last reload \d+ ms: two\.py\n", text), text
    assert re.search("  ".join(rf"{step} [\d.]+ ms" for step in STEPS), text), text
    assert "refus" not in text.replace("refused 0", "")


def test_reload_is_one_line_that_names_files_and_generation(parted: Service) -> None:
    module(parted, "one", "NAME = 'second'\n")
    parted.wait_for(lambda: GOOD.search(parted.log()), 10)
    (line,) = [line for line in parted.log().splitlines() if "reloaded in" in line]
    assert (found := GOOD.search(line))
    assert found.group(2, 3) == ("one.py", "2")
    for step in STEPS[:-1]:
        assert re.search(rf" {step}=\d+\.\d+", line), line


def test_file_saved_before_it_is_imported_is_named_too(parted: Service) -> None:
    waits = parted.root / "waits"
    module(parted, "one", held(waits) + "NAME = 'second'\n")
    parted.wait_for(waits.exists, 10)
    module(parted, "two", "NAME = 'second'\n")
    waits.unlink()
    parted.wait_for(lambda: parted.ask("two.NAME") == "second", 10)
    assert sorted(reload_of(parted)["cause"]) == ["one.py", "two.py"]
    assert parted.status()["generation"] == 2
    assert "boots anew" not in parted.log()


def test_file_saved_after_it_was_imported_is_named_too(parted: Service) -> None:
    waits = parted.root / "waits"
    module(parted, "two", held(waits) + "NAME = 'second'\n")
    parted.wait_for(waits.exists, 10)
    module(parted, "one", "NAME = 'second'\n")
    module(parted, "two", "NAME = 'third'\n")
    waits.unlink()
    parted.wait_for(lambda: parted.ask("[one.NAME, two.NAME]") == ["second", "third"], 10)
    assert sorted(reload_of(parted)["cause"]) == ["one.py", "two.py"]
    assert parted.status()["generation"] == 2
    parted.wait_for(lambda: "boots anew" in parted.log(), 5)


def test_refusal_stands_in_status_and_stays_as_the_last_one(parted: Service) -> None:
    module(parted, "one", "NAME = 'second'\ndef (:\n")
    told = refused(parted)
    first = f"{parted.root}/one.py:2: SyntaxError: invalid syntax"
    assert told["error"].splitlines()[0] == first
    assert told["cause"] == ["one.py"]
    assert told["refusal"]["error"] == told["error"]
    text = parted.ok("status").stdout.splitlines()
    assert text[:2] == ["reload refused: one.py", first]
    waits = parted.root / "waits"
    module(parted, "one", held(waits) + "NAME = 'third'\n")
    parted.wait_for(waits.exists, 10)
    assert f"last refusal: {first}" in parted.ok("status").stdout.splitlines()  # while it boots
    waits.unlink()
    parted.wait_for(lambda: reload_of(parted)["state"] == "ok", 10)
    after = reload_of(parted)
    assert after["error"] is None
    assert after["refusal"] == told["refusal"]
    assert f"last refusal: {first}" in parted.ok("status").stdout.splitlines()


def test_refusal_in_the_foreground_is_short_and_says_the_line_first(make: Serve) -> None:
    service = make(watch_file=True)
    service.start_foreground()
    service.edit(LINE, "x = undefined_name\n\n\n" + LINE)
    refused(service)
    number = service.app_path.read_text().splitlines().index("x = undefined_name") + 1
    told = (service.root / "foreground.out").read_text()
    head, _, rest = told.partition("reload refused: app.py\n")
    assert head
    lines = rest.splitlines()
    assert (
        lines[0] == f"{service.app_path}:{number}: NameError: name 'undefined_name' is not defined"
    )
    assert lines[1] == "Traceback (most recent call last):"
    assert f'File "{service.app_path}", line {number}' in lines[2]
    end = lines.index("NameError: name 'undefined_name' is not defined")
    assert not [line for line in lines[:end] if "/procd/" in line or "importlib" in line]
    service.edit("x = undefined_name\n\n\n" + LINE, LINE)
    service.wait_for(lambda: GOOD.search((service.root / "foreground.out").read_text()), 10)


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_refusal_by_on_worker_start_is_told_as_one_of_the_import(
    parted: Service, kind: str
) -> None:
    parted.edit(LINE, HOOK.replace("def", kind) + LINE)
    told = refused(parted)
    number = parted.app_path.read_text().splitlines().index(HOOK.splitlines()[2]) + 1
    lines = told["error"].splitlines()
    assert lines[0] == f"{parted.app_path}:{number}: ValueError: no database"
    files = {line.split('"')[1] for line in lines if line.startswith('  File "')}
    assert files == {str(parted.app_path)}


def test_reload_by_command_prints_the_same(service: Service) -> None:
    service.edit(LINE, HOOK + LINE)
    done = service.run("reload")
    number = service.app_path.read_text().splitlines().index(HOOK.splitlines()[2]) + 1
    assert done.returncode == 1
    assert f"{service.app_path}:{number}: ValueError: no database" in done.stderr.splitlines()[0]
    service.edit(HOOK + LINE, LINE)
    assert GOOD.match(service.reload().stdout)
