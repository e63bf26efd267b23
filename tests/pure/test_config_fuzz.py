"""Bytes that are no config are refused with a place in every line, or accepted; never a traceback.

50 examples each; under PROCD_TORTURE=1 1,000.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procd.config.load import load
from procd.config.schema import KEYS, Config
from procd.errors import ConfigError

MANUAL = (Path(__file__).parents[2] / "config" / "procd.yaml").read_bytes()
# The comments are most of the manual, and a mutation there is no test.
SHORT = b"".join(line for line in MANUAL.splitlines(True) if line.strip() and line[0] != ord("#"))
SHORT = SHORT.replace(b"chdir: ..", b"chdir: .").replace(
    b"listen: [", b'listen: [unix:///x?mode=0600, "tcp://[::1]:80", systemd://a, '
)

fuzz = settings(
    max_examples=1000 if os.environ.get("PROCD_TORTURE") else 50,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# What YAML itself stumbles over, and what it reads otherwise than a person does.
NASTY = [b"&a ", b"*a", b"!!int ", b"%TAG ! x\n", b"---\n", b"\t", b"\0", b"\xff", b"\xef\xbb\xbf"]
NASTY += [
    b"? ",
    b": ",
    b"- ",
    b"[",
    b"}",
    b"|\n",
    b">-\n ",
    b'"\\UFFFFFFFF"',
    b'"\\ud800"',
    b"<<: ",
]
NASTY += [b"9" * 5000, b"1:30", b"2024-01-01", b".nan", b"-.inf", b"0x", b"\xc2\x85", b"[" * 3000]
NASTY += [b"\xe2\x80\xa8", b"'", b'"', b"#", b"\r", b"@", b"`", b"%YAML 1.2\n", b"worker_num: 1\n"]

edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "double"]),
        st.integers(0, len(SHORT) - 1),
        st.one_of(st.sampled_from(NASTY), st.binary(min_size=1, max_size=8)),
    ),
    min_size=1,
    max_size=6,
)


def mutated(text: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for how, at, new in changes:
        match how:
            case "flip":
                text = text[:at] + new + text[at + len(new) :]
            case "insert":
                text = text[:at] + new + text[at:]
            case "delete":
                text = text[:at] + text[at + len(new) :]
            case _:
                text += text[at : at + 100 * len(new)]
    return text


@pytest.fixture(scope="module")
def file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "procd.yaml"


def judge(file: Path, text: bytes) -> None:
    file.write_bytes(text)
    try:
        config = load(file, environ={})
    except ConfigError as error:
        lines = str(error).split("\n")
        assert lines
        for line in lines:
            assert re.match(rf"{re.escape(str(file))}:\d+:\d+: \S", line), line
            assert line.isprintable(), line
    else:
        assert Config.from_plain(config.plain()) == config


@fuzz
@given(edits)
def test_mutated_bytes(file: Path, changes: list[tuple[str, int, bytes]]) -> None:
    judge(file, mutated(SHORT, changes))


@fuzz
@given(st.binary(max_size=200))
def test_random_bytes(file: Path, text: bytes) -> None:
    judge(file, text)


@fuzz
@given(st.text(st.sampled_from("\n\t -:,?[]{}#&*!|>'\"%@`<=~0a\\xU.\u2028\ufeff"), max_size=60))
def test_random_punctuation(file: Path, text: str) -> None:
    judge(file, text.encode())


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 100),
    st.integers(),
    st.floats(),
    st.dates(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.sampled_from(["auto", "off", "64K", "0660", "tcp://h:1", "unix:///x", "a:b", "9" * 400]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=4), st.integers()), inner, max_size=3),
    ),
    max_leaves=8,
)


@fuzz
@given(st.dictionaries(st.one_of(st.sampled_from(sorted(KEYS)), st.text(max_size=8)), values))
def test_any_structure(file: Path, tree: dict[str, object]) -> None:
    judge(file, yaml.dump({"app": "a:b"} | tree, allow_unicode=True).encode())


@fuzz
@given(st.sampled_from(sorted(KEYS)), st.text(max_size=30))
def test_any_override_is_taken_or_named(file: Path, key: str, text: str) -> None:
    file.write_text("app: a:b")
    for overrides, environ, place in (
        ([f"{key}={text}"], {}, f"-s {key}: "),
        ([], {f"PROCD_{key.upper()}": text}, f"PROCD_{key.upper()}: "),
    ):
        try:
            load(file, overrides, environ)
        except ConfigError as error:
            for line in str(error).split("\n"):
                assert line.startswith(place), line
                assert line.isprintable(), line
