"""The config as a user meets it: every fault with its place, all at once, never a traceback."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.conftest import Serve
from tests.service.daemon import DEFAULTS, Service, scaled

PLACE = re.compile(r"^(/[^:]+):(\d+):(\d+): (.+)$", re.MULTILINE)


def faults(service: Service, text: str) -> list[tuple[int, int, str]]:
    """What `procd check` finds in *text*: line, column, words."""
    service.config_path.write_text(text)
    done = service.run("check")
    assert done.returncode == 2, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    places = PLACE.findall(said)
    assert {path for path, *_ in places} == {str(service.config_path)}
    return [(int(line), int(column), words) for _, line, column, words in places]


@pytest.fixture
def written(make: Serve) -> Service:
    return make()


@pytest.mark.short
def test_all_faults_are_said_at_once_with_their_places(written: Service) -> None:
    text = "app: app:server\nworker_num: many\nmax_wait_time: -1\nlisten:\n  - http//nowhere\n"
    found = faults(written, text)
    assert [line for line, *_ in found] == [2, 3, 5]
    assert "worker_num" in found[0][2]
    assert found[0][1] == 13
    assert "max_wait_time" in found[1][2]
    assert "listen[0]" in found[2][2]


def test_unknown_key_is_answered_with_the_nearest(written: Service) -> None:
    ((line, column, words),) = faults(written, "app: app:server\nworker_nun: 3\n")
    assert (line, column) == (2, 1)
    assert "worker_nun" in words
    assert "worker_num" in words


def test_missing_app_is_a_fault(written: Service) -> None:
    found = faults(written, "worker_num: 1\n")
    assert any("app" in words for *_, words in found)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("app: [\n", 2),
        ("app: app:server\n\tworker_num: 3\n", 2),
        ("- a\n- b\n", 1),
        ("just words\n", 1),
        ("app: app:server\napp: other:server\n", 2),
        ("app: app:server\nworker_num: !!python/object/apply:os.system ['true']\n", 2),
        ("app: app:server\nlisten: &a [*a]\n", 2),
        ("app: app:server\nworker_num: 1e400\n", 2),
        ("app: app:server\nworker_num: 99999999999999999999\n", 2),
        ("app: app:server\nlisten: [tcp://127.0.0.1:99999]\n", 2),
        ("app: app:server\nlisten: ['unix://']\n", 2),
        ("app: app:server\nlisten: ['ftp://127.0.0.1:1']\n", 2),
        ("app: app:server\nenv: {A: {}}\n", 2),
        ("app: app:server\nlog_level: loud\n", 2),
        ("app: app:server\nmessage_queue_mode: 0999\n", 2),
        ("app: app:server\nuser: no-such-user-here\n", 2),
        ("app: nocolon\n", 1),
    ],
)
def test_fault_is_placed(written: Service, text: str, line: int) -> None:
    found = faults(written, text)
    assert line in [at for at, *_ in found] or line - 1 in [at for at, *_ in found], found


def test_bytes_that_are_no_text_are_a_fault(written: Service) -> None:
    written.config_path.write_bytes(b"app: \xff\xfe\x00")
    done = written.run("check")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_missing_config_is_named(written: Service) -> None:
    written.config_path.unlink()
    for command in ("start", "check"):
        done = written.run(command)
        assert done.returncode == 2
        assert str(written.config_path) in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["-s", "worker_num"],
        ["-s", "worker_nun=3"],
        ["-s", "worker_num=many"],
        ["-s", "listen=[tcp://"],
        ["--no-such-option"],
    ],
)
def test_wrong_option_of_start_is_a_usage_error(written: Service, words: list[str]) -> None:
    done = written.run("start", *words)
    assert done.returncode == 2
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
    assert not written.alive()


def test_wrong_variable_of_the_environment_is_named(written: Service) -> None:
    written.extra_environment = {"PROCD_WORKER_NUM": "many"}
    done = written.run("start")
    assert done.returncode == 2
    assert "PROCD_WORKER_NUM" in done.stderr


def test_options_persist_over_reloads(make: Serve) -> None:
    service = make().start("-s", "worker_num=3")
    service.reload()
    assert len(service.pids("worker")) == 3


def test_values_of_options_are_yaml(make: Serve) -> None:
    service = make().start("-s", "listen=[tcp://127.0.0.1:0, tcp://127.0.0.1:0]")
    assert len(service.status()["listeners"]) == 2


def test_unknown_command_is_a_usage_error(written: Service) -> None:
    done = written.run("dance")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


GOOD = yaml.safe_dump(DEFAULTS)
MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, len(GOOD)),
        st.integers(0, 12),
        st.one_of(
            st.text(max_size=6), st.sampled_from(["\t", "&a ", "*a", "!!x ", "{", "- ", ": "])
        ),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.heavy
@settings(
    max_examples=scaled(500),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(mutations=MUTATIONS)
def test_mutated_config_is_accepted_or_refused_with_a_place(
    written: Service, mutations: list[tuple[int, int, str]]
) -> None:
    text = GOOD
    for at, length, fresh in mutations:
        text = text[:at] + fresh + text[at + length :]
    written.config_path.write_bytes(text.encode("utf-8", "surrogatepass"))
    done = written.run("check")
    said = done.stdout + done.stderr
    assert done.returncode in {0, 2}, said
    if done.returncode == 2:
        assert f"{written.config_path}:" in said or "app" in said
    assert "procd/" not in said or "Traceback" not in said
