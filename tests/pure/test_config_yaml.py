"""What is no YAML, more YAML than a config may use, or no file, is refused with its place."""

import os
from pathlib import Path

import pytest

from tests.pure.configs import faults, refusal

# ---------------------------------------------------------------- YAML


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("app: a: b", "1:7: not valid YAML: mapping values are not allowed here"),
        ("a: [1\nb: 2", "2:2: not valid YAML: while parsing a flow sequence: expected ',' or ']'"),
        ("app: a:b\napp: c:d", '2:1: "app" is given twice; first in line 1'),
        ("app: a:b\nenv: {A: x, A: y}", '2:13: "A" is given twice; first in line 2'),
        ("app: &x a:b", "1:6: &x: no anchors; remove it"),
        ("app: a:b\nlog_level: *x", "2:12: *x: no aliases; write it out"),
        ("app: a:b\nlisten: [*x]", "2:10: *x: no aliases; write it out"),
        ("app: a:b\nenv: {A: *x, *y : z}", "2:10: *x: no aliases; write it out"),
        ("app: !!python/name:os.system a:b", '1:6: tag "tag:yaml.org,2002:python/name:os.system"'),
        ("app: ! a:b", '1:6: tag "!": no tags; remove it'),
        ("app: a:b\n[a]: 1", "2:1: a key is one word, no list or mapping"),
        ("app: a:b\n--- \nb: 1", "2:1: a second document begins here"),
        ("[" * 5_000, "1:9: nested deeper than 8 levels"),
        ("? " * 5_000, "1:17: nested deeper than 8 levels"),
        ("- a\n" * 10_000, "10001:1: more than 10000 values"),
        ("- a", "1:1: a config is a mapping"),
        ("# nothing", "1:1: app: is missing"),
        ("\ufeff", "1:1: app: is missing"),
        ("app: a\tb\0c", "1:9: NUL byte: a config is plain text"),
        ("é: \x07", "1:4: character U+0007: a config is plain text"),
        (r'app: "a\0b"', "1:6: holds a NUL or half a surrogate pair"),
        (r'app: "a\ud800b"', "1:6: holds a NUL or half a surrogate pair"),
        (r'app: "\UFFFFFFFF"', "1:1: not valid YAML: a number in or after this is too large"),
        ("%YAML " + "9" * 5000, "1:1: not valid YAML: a number in or after this is too large"),
        (b"app: a:b\n\xc3\xa9: \xff", "2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("app: a:b".encode("utf-16"), "1:1: byte 0xff is not UTF-8"),
        (b"#" * (1024 * 1024 + 1), "1:1: the file is larger than 1 MiB"),
    ],
)
def test_wrong_yaml(tmp_path: Path, text: str | bytes, line: str) -> None:
    assert faults(tmp_path, text)[0].startswith(f"procd.yaml:{line}")


def test_alias_gives_no_second_fault(tmp_path: Path) -> None:
    text = "app: *a\nlisten: *b\nenv: *c\nchdir: *d\nworker_num: *e\npreload: *f\n*g : 1"

    assert [line.partition(" ")[2] for line in faults(tmp_path, text)] == [
        f"*{name}: no aliases; write it out" for name in "abcdefg"
    ]


# ---------------------------------------------------------------- files


def test_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "x") == f"{tmp_path}/x: there is no such file"


def test_folder_and_fifo_are_no_config(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    assert refusal(tmp_path) == f"{tmp_path}: is no regular file; give the YAML file itself"
    assert refusal(tmp_path / "fifo").endswith("is no regular file; give the YAML file itself")


def test_name_that_no_file_can_have(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a\0b").endswith("is no regular file; give the YAML file itself")
    assert "cannot be read: File name too long" in refusal(tmp_path / ("x" * 300))
    assert "cannot be read: Not a directory" in refusal(Path("/dev/null/x"))


def test_path_that_is_not_utf_8() -> None:
    assert refusal(Path("/tmp/\udcff.yaml")) == r"/tmp/\udcff.yaml: the path is not UTF-8"


def test_file_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("procd.config.source.os.open", refuse)  # root may read every real file

    assert refusal(tmp_path / "x").endswith(
        f"uid {os.geteuid()} may not read it; change its owner or mode"
    )
