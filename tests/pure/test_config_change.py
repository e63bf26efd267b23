"""What an edit changes, and when: at once, by a new generation, or by a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from procd.config import address, change
from procd.config.change import GENERATION, LIVE, RESTART, Edit
from procd.config.schema import KEYS, Listen
from tests.pure.configs import loaded

A, B, C = "tcp://127.0.0.1:9000", "tcp://127.0.0.1:9001", "unix:///run/c.sock"
ANY = "tcp://127.0.0.1:0"


def edit(folder: Path, old: str, new: str) -> Edit:
    return change.compare(loaded(folder, old), loaded(folder, new))


def listens(*texts: str) -> list[Listen]:
    return [address.parse(text, "/") for text in texts]


# ---------------------------------------------------------------- when


def test_every_key_is_in_exactly_one_class() -> None:
    assert sorted(LIVE + GENERATION + RESTART) == sorted(KEYS)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("worker_num: 3", LIVE),
        ("log_level: debug", LIVE),
        ("watch_file: false", LIVE),
        ("backlog: 7", LIVE),
        ("env: {A: b}", GENERATION),
        ("max_conn: 7", GENERATION),
        ("listen: []", GENERATION),
        ("run_dir: other", RESTART),
        ("task_slots: 64", RESTART),
    ],
)
def test_a_key_is_applied_when_its_row_says(
    tmp_path: Path, text: str, row: tuple[str, ...]
) -> None:
    found = edit(tmp_path, "", text)
    name = text.partition(":")[0]
    assert name in row
    assert (found.live, found.generation, found.waits) == tuple(
        (name,) if each is row else () for each in (LIVE, GENERATION, RESTART)
    )


def test_what_waits_for_a_restart_keeps_its_old_value(tmp_path: Path) -> None:
    found = edit(tmp_path, "task_slots: 64", "task_slots: 128\nworker_num: 3")
    assert (found.new.task_slots, found.new.worker_num) == (64, 3)


def test_a_comment_changes_nothing(tmp_path: Path) -> None:
    found = edit(tmp_path, "worker_num: 3", "# three\nworker_num: 3")
    assert found.parts == []
    assert str(found) == ""


def test_an_edit_takes_a_generation_also_if_one_was_refused_with_what_it_takes_back(
    tmp_path: Path,
) -> None:
    plain, broken, more = (
        loaded(tmp_path, text) for text in ("", "env: {A: bad}", "worker_num: 7")
    )
    assert not change.compare(plain, more).takes_generation(None)
    assert change.compare(plain, plain).takes_generation(broken)
    assert not change.compare(plain, more).takes_generation(plain)
    assert change.compare(plain, broken).takes_generation(None)


# ---------------------------------------------------------------- listeners


@pytest.mark.parametrize(
    ("old", "new", "pairs"),
    [
        ([], [A], [None]),
        ([A], [A], [0]),
        ([A], [], []),
        ([A, B], [B, A], [1, 0]),
        ([A], [B], [None]),
        ([A, C], [C, B], [1, None]),
        ([ANY], [ANY, ANY], [0, None]),
        ([ANY, ANY], [ANY], [0]),
        ([C], [C + "?mode=0600"], [0]),
        (["systemd://a"], ["systemd://b", "systemd://a"], [None, 0]),
        (["tcp://127.0.0.1:0"], ["tcp://[::1]:0"], [None]),
    ],
)
def test_listeners_stay_by_their_identity(
    old: list[str], new: list[str], pairs: list[int | None]
) -> None:
    assert change.paired(listens(*old), listens(*new)) == pairs


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("worker_num: 2", "worker_num: 3", "worker_num 2 -> 3"),
        ("", "hang_timeout: null", "hang_timeout 30 -> null"),
        ("", "watch_file: false", "watch_file true -> false"),
        ("", "watch_extra: [a, b]", "watch_extra [] -> [a, b]"),
        ("", "umask: 0077", "umask 0027 -> 0077"),
        (
            "rlimits: {nofile: 1K}",
            "rlimits: {nofile: 2K, core: unlimited}",
            "rlimits {nofile: 1024} -> {core: unlimited, nofile: 2048}",
        ),
        ("", "message_queue_codec: php", "message_queue_codec auto -> php"),
        (f"listen: [{A}]", f"listen: [{A}, {B}]", f"listen + {B}"),
        (f"listen: [{A}, {B}]", f"listen: [{A}]", f"listen - {B}"),
        (f"listen: [{A}]", f"listen: [{B}]", f"listen + {B}, listen - {A}"),
        (f"listen: [{A}, {B}]", f"listen: [{B}, {A}]", ""),
        (f"listen: ['{C}']", f"listen: ['{C}?mode=0660']", ""),
        (
            f"listen: ['{C}']",
            f"listen: ['{C}?mode=0600']",
            "listen unix:///run/c.sock mode 0660 -> 0600",
        ),
        (
            "task_slots: 64\nworker_num: 1",
            "task_slots: 128",
            "worker_num 1 -> 2; needs a restart: task_slots",
        ),
        ("", "run_dir: r", "needs a restart: run_dir"),
    ],
)
def test_an_edit_is_told_in_one_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    assert str(edit(tmp_path, old, new)) == line


def test_an_environment_is_told_by_its_names_for_its_values_may_be_secret(tmp_path: Path) -> None:
    found = edit(tmp_path, "env: {A: s1, B: s2, C: s3}", "env: {B: s4, C: s3, D: s5}")
    assert str(found) == "env - A, env ~ B, env + D"


def test_the_log_has_one_field_a_key(tmp_path: Path) -> None:
    found = edit(tmp_path, f"listen: [{A}]", f"listen: [{B}]\nworker_num: 4")
    assert found.fields == {"listen": f"+ {B}, - {A}", "worker_num": "2 -> 4"}
