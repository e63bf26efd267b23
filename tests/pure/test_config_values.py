"""What each kind of value becomes: sizes, times, modes, words, texts, listeners."""

import builtins
import dataclasses
import os
import types
import typing
from pathlib import Path

import pytest

from procd.config import limits
from procd.config.load import load
from procd.config.schema import Config, Listen
from tests.pure.configs import loaded, written

# ---------------------------------------------------------------- types and units


def fits(value: object, hint: object) -> bool:
    """Say whether *value* is of the annotated type *hint*; a bool is no int here."""
    inner = typing.get_args(hint)
    match typing.get_origin(hint):
        case types.UnionType | typing.Union:
            return any(fits(value, one) for one in inner)
        case typing.Literal:
            return value in inner
        case builtins.tuple:
            return isinstance(value, tuple) and all(fits(item, inner[0]) for item in value)
        case builtins.dict:
            return isinstance(value, dict) and all(fits(item, inner[1]) for item in value.values())
    assert isinstance(hint, type)
    return isinstance(value, hint) and (not isinstance(value, bool) or hint is bool)


@pytest.mark.parametrize(
    "text", ["", "user: root\npreload: [json]\nlog_file: null\nenv: {A: 1}\nwatch_poll: off"]
)
def test_every_value_has_the_type_that_the_dataclass_says(tmp_path: Path, text: str) -> None:
    config = loaded(tmp_path, text)
    hints = typing.get_type_hints(Config)

    assert [name for name, hint in hints.items() if not fits(getattr(config, name), hint)] == []


def test_sizes_take_a_suffix_of_1024(tmp_path: Path) -> None:
    config = loaded(tmp_path, "send_buffer_bytes: 64K\ntask_max_bytes: 2G\ntask_slot_bytes: 512")

    assert config.send_buffer_bytes == 65536
    assert config.task_max_bytes == 2 * 1024**3
    assert config.task_slot_bytes == 512


def test_limits_are_sizes_or_unlimited(tmp_path: Path) -> None:
    text = "rlimits: {nofile: 65536, as: 2G, core: unlimited, memlock: 0}"
    assert loaded(tmp_path, text).rlimits == {
        "as": 2 * 1024**3,
        "core": None,
        "memlock": 0,
        "nofile": 65536,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("auto", "auto"),
        ("0", ("0",)),
        ("[0, 0-0]", ("0", "0-0")),
        ('["0,0"]', ("0,0",)),
    ],
)
def test_cpus_are_sets_one_a_worker(tmp_path: Path, text: str, value: object) -> None:
    if 0 not in os.sched_getaffinity(0):
        pytest.skip("this process may not use CPU 0")
    assert loaded(tmp_path, f"cpu_affinity: {text}").cpu_affinity == value


def test_sets_of_cpus_are_read_as_taskset_reads_them() -> None:
    assert limits.cpus("0-2, 7,9-9") == [0, 1, 2, 7, 9]


@pytest.mark.parametrize("mode", ["0660", '"0660"', "'0660'", "0o660"])
def test_mode_is_octal_however_it_is_written(tmp_path: Path, mode: str) -> None:
    assert loaded(tmp_path, f"message_queue_mode: {mode}").message_queue_mode == 0o660


def test_times_are_floats_whether_or_not_they_have_a_point(tmp_path: Path) -> None:
    config = loaded(tmp_path, "max_wait_time: 5\nboot_timeout: 0.25\nhang_timeout: 1e3")

    assert (config.max_wait_time, config.boot_timeout, config.hang_timeout) == (5.0, 0.25, 1000.0)
    assert type(config.max_wait_time) is float


def test_auto_worker_num_is_the_cpus_that_this_process_may_use(tmp_path: Path) -> None:
    assert loaded(tmp_path, "worker_num: auto").worker_num == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("auto", "auto"),
        ("off", "off"),
        ("false", "off"),
        ('"off"', "off"),
        ("[numpy, a.b]", ("numpy", "a.b")),
        ("numpy", ("numpy",)),
        ("[]", ()),
    ],
)
def test_preload_takes_words_and_modules(tmp_path: Path, text: str, value: object) -> None:
    assert loaded(tmp_path, f"preload: {text}").preload == value


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("true", True), ("off", False)])
def test_watch_poll_is_a_flag_or_auto(tmp_path: Path, text: str, value: object) -> None:
    assert loaded(tmp_path, f"watch_poll: {text}").watch_poll is value or value == "auto"


def test_environment_is_text_as_it_was_written(tmp_path: Path) -> None:
    config = loaded(tmp_path, "env: {PORT: 0660, DEBUG: yes, EMPTY: '', DAY: 2024-01-01}")

    assert config.env == {"PORT": "0660", "DEBUG": "yes", "EMPTY": "", "DAY": "2024-01-01"}


def test_user_and_group_are_names_or_numbers(tmp_path: Path) -> None:
    config = loaded(tmp_path, "user: root\ngroup: 12345")

    assert (config.user, config.group) == ("root", "12345")


@pytest.mark.parametrize(
    "app", ["app:server", "a.b:c.d", "app.py:server", "/srv/my app/x.py:s", "./x.py:s"]
)
def test_app_is_a_module_or_a_file_and_an_attribute(tmp_path: Path, app: str) -> None:
    assert load(written(tmp_path, f"app: {app}"), environ={}).app == app


# ---------------------------------------------------------------- listeners


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://127.0.0.1:9000", ("tcp", "127.0.0.1", 9000, "", None, "")),
        ("tcp://[0::1]:0", ("tcp", "::1", 0, "", None, "")),
        ("tcp://LocalHost:65535", ("tcp", "localhost", 65535, "", None, "")),
        ("unix:///run/a.sock", ("unix", "", 0, "/run/a.sock", None, "")),
        ("unix:///run/a.sock?mode=0660", ("unix", "", 0, "/run/a.sock", 0o660, "")),
        ("unix:///run/x/../a.sock?mode=600", ("unix", "", 0, "/run/a.sock", 0o600, "")),
        ("systemd://http", ("systemd", "", 0, "", None, "http")),
    ],
)
def test_listeners(tmp_path: Path, text: str, expected: tuple[object, ...]) -> None:
    (listen,) = loaded(tmp_path, f'listen: ["{text}"]').listen

    assert dataclasses.astuple(listen) == (*expected, text)


def test_relative_socket_is_based_on_chdir(tmp_path: Path) -> None:
    (listen,) = loaded(tmp_path, "listen: [unix://a.sock]").listen

    assert listen.path == str(tmp_path / "a.sock")


def test_no_listener_is_a_pure_task_service(tmp_path: Path) -> None:
    assert loaded(tmp_path, "listen: []").listen == ()


def test_one_listener_needs_no_list(tmp_path: Path) -> None:
    config = loaded(tmp_path, "", "listen=tcp://h:1")

    assert config.listen == (Listen("tcp", "h", 1, "", None, "", "tcp://h:1"),)


def test_many_listeners_on_any_free_port_are_not_the_same(tmp_path: Path) -> None:
    assert len(loaded(tmp_path, "listen: [tcp://h:0, tcp://h:0]").listen) == 2
