"""How an entry is written: for people, for machines, for journald; and read back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.logger import formats
from procd.logger.entry import Entry, Who

AT = 1_700_000_000.123456
ENTRY = Entry(AT, "info", Who("worker", 71, 0, 3), "what it says")
WHOS = [
    (Who("worker", 71, 0, 3), "worker-0@3[71]"),
    (Who("task", 5, 2, 14), "task-2@14[5]"),
    (Who("template", 5, None, 14), "template@14[5]"),
    (Who("master", 5), "master[5]"),
]


@pytest.mark.parametrize(("who", "name"), WHOS)
def test_text_names_who_says_it(who: Who, name: str) -> None:
    assert formats.text(ENTRY._replace(who=who)).endswith(f".123 info {name} what it says")


@pytest.mark.parametrize("who", [who for who, _ in WHOS])
@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("message", ["one", "two\nlines", "a\n\nb", ""])
def test_what_is_written_is_read_back(who: Who, form: str, message: str) -> None:
    first = Entry(AT, "error", who, message)
    second = Entry(AT + 1, "debug", who, "another")
    written = b"".join(formats.line(entry, form) for entry in (first, second)).decode()
    found = list(formats.entries(iter(written.removesuffix("\n").split("\n"))))
    assert [entry[1:] for entry in found] == [first[1:], second[1:]]
    assert found[0].time == pytest.approx(AT, abs=0.001)


@given(st.text(), st.sampled_from(["debug", "info", "warning", "error"]))
def test_any_message_is_one_line_of_json(message: str, level: str) -> None:
    line = formats.line(ENTRY._replace(message=message, level=level), "json")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.123456Z",
        "level": level,
        "role": "worker",
        "id": 0,
        "pid": 71,
        "generation": 3,
        "message": message,
    }


@given(st.text(max_size=200))
def test_no_line_of_a_log_is_too_strange_to_be_read(line: str) -> None:
    formats.parsed(line)
    formats.parsed("{" + line)


@pytest.mark.parametrize(
    "line",
    [
        *("", "no entry", "{}", '{"time": 1}', "2026-11-23T15:04:05.123 loud master[71] x"),
        '{"time": "x", "level": "info", "role": "w", "id": 0, "pid": 1, "generation": 1}',
    ],
)
def test_a_line_that_begins_no_entry_belongs_to_the_one_before(line: str) -> None:
    assert formats.parsed(line) is None
    text = formats.text(ENTRY)
    (entry,) = formats.entries(iter(["lost", text, line]))
    assert entry.message == f"what it says\n{line}"


def test_colour_changes_nothing_but_the_colour() -> None:
    for level in ("debug", "info", "warning", "error"):
        entry = ENTRY._replace(level=level)
        coloured = formats.text(entry, colour=True)
        plain = coloured
        for code in ("2", "31", "33", "36", "0"):
            plain = plain.replace(f"\x1b[{code}m", "")
        assert plain == formats.text(entry)
        assert coloured != plain


# ---------------------------------------------------------------- journald


def fields_of(datagram: bytes) -> dict[str, bytes]:
    """Read a datagram as systemd.io/JOURNAL_NATIVE_PROTOCOL describes it."""
    fields = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, end, rest = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert end == b"\n"
        fields[name.decode()] = value
        datagram = rest
    return fields


def test_the_journal_gets_priority_and_who_says_it() -> None:
    assert fields_of(formats.journal(ENTRY._replace(level="warning"), "shop")) == {
        "MESSAGE": b"what it says",
        "PRIORITY": b"4",
        "SYSLOG_IDENTIFIER": b"shop",
        "SYSLOG_PID": b"71",
        "PROCD_ROLE": b"worker",
        "PROCD_WORKER": b"0",
        "PROCD_GENERATION": b"3",
    }


def test_the_journal_gets_no_field_that_there_is_not() -> None:
    fields = fields_of(formats.journal(ENTRY._replace(who=Who("master", 5)), "shop"))
    assert not {"PROCD_WORKER", "PROCD_GENERATION"} & fields.keys()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_message_is_one_entry_of_the_journal(message: str) -> None:
    fields = fields_of(formats.journal(ENTRY._replace(message=message), "shop"))
    assert fields["MESSAGE"].decode() == message
    assert len(fields) == 7


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", b"7"), ("info", b"6"), ("warning", b"4"), ("error", b"3")]
)
def test_priorities_are_those_of_syslog(level: str, priority: bytes) -> None:
    assert fields_of(formats.journal(ENTRY._replace(level=level), "x"))["PRIORITY"] == priority
