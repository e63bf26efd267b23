"""What the logger makes of a process's bytes: lines, records, tracebacks, and no flood."""

from __future__ import annotations

import traceback
from math import inf

import pytest

from procd.logger.budget import BURST_SECONDS, LINE_BYTES, QUIET_SECONDS, REPORT_SECONDS, Budget
from procd.logger.entry import MAX_LINE_BYTES, Entry, Who, framed, level_of, unframed
from procd.logger.joiner import SECONDS
from procd.logger.source import Source

WHO = Who("worker", 71, 1, 3)
CLOCK = 1_000.5


def source(rate: int | None = None) -> Source:
    return Source(WHO, rate, 0.0)


def told(entries: list[Entry]) -> list[tuple[str, str]]:
    return [(entry.level, entry.message) for entry in entries]


def all_of(text: str | bytes, step: int = 1 << 30) -> list[tuple[str, str]]:
    """What the source makes of *text* that comes in pieces of *step* bytes, and then ends."""
    data = text.encode() if isinstance(text, str) else text
    one = source()
    entries: list[Entry] = []
    for start in range(0, len(data), step):
        entries += one.feed(data[start : start + step], 0.0, CLOCK)
    return told(entries + one.last_words(0.0, CLOCK))


# ---------------------------------------------------------------- lines


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_lines_are_the_same_however_they_come_in(step: int) -> None:
    text = "one\ntwo\r\n\n  three é\nthe last has no end"
    lines = ["one", "two", "", "  three é", "the last has no end"]
    assert all_of(text, step) == [("info", line) for line in lines]


def test_a_line_waits_for_its_end() -> None:
    one = source()
    assert one.feed(b"begun", 0.0, CLOCK) == []
    assert one.feed(b" and ended\nnext", 1.0, CLOCK) == [
        Entry(CLOCK, "info", WHO, "begun and ended")
    ]


def test_bytes_that_are_no_text_are_shown() -> None:
    assert all_of(b"\xff\x00ok\n") == [("info", "\\xff\x00ok")]


@pytest.mark.parametrize("step", [1000, 1 << 30])
def test_a_line_that_is_too_long_is_cut_and_says_so(step: int) -> None:
    whole = "x" * MAX_LINE_BYTES
    assert all_of(f"{whole}\n{whole}yyy\nnext\n", step) == [
        ("info", whole),
        ("info", f"{whole} [cut: 3 more bytes]"),
        ("info", "next"),
    ]


def test_an_endless_line_takes_no_more_memory_than_a_long_one() -> None:
    one = source()
    for _ in range(1000):
        one.feed(b"x" * MAX_LINE_BYTES, 0.0, CLOCK)
    (entry,) = one.feed(b"\n", 0.0, CLOCK)
    assert entry.message.endswith(f" [cut: {999 * MAX_LINE_BYTES:,} more bytes]")
    assert len(entry.message) < MAX_LINE_BYTES + 100


# ---------------------------------------------------------------- records


@pytest.mark.parametrize("step", [1, 10, 1 << 30])
def test_a_record_keeps_its_level_its_time_and_all_its_lines(step: int) -> None:
    data = framed(5.25, "warning", 99, 'two\nlines "é" \udc80')
    one = source()
    entries: list[Entry] = []
    for start in range(0, len(data), step):
        entries += one.feed(data[start : start + step], 0.0, CLOCK)
    assert entries == [Entry(5.25, "warning", WHO._replace(pid=99), 'two\nlines "é" \udc80')]


def test_a_record_behind_half_a_line_is_apart_from_it() -> None:
    data = b"no end" + framed(5.0, "error", 71, "bad") + b"next\n"
    assert all_of(data) == [("info", "no end"), ("error", "bad"), ("info", "next")]


def test_a_process_says_its_pid_before_anything_else() -> None:
    one = Source(Who("worker", 0, 1, 3), None, 0.0)
    assert one.feed(framed(0, "debug", 71, "") + b"hello\n", 0.0, CLOCK) == [
        Entry(CLOCK, "info", WHO, "hello")
    ]


@pytest.mark.parametrize(
    "line",
    ["\x1e", "\x1e[1]", "\x1e{}", '\x1e[1,"loud",7,"x"]', '\x1e[1,"info","7","x"]', "\x1e[["],
)
def test_what_is_no_record_is_a_line(line: str) -> None:
    assert unframed(line.encode()) is None
    assert all_of(line + "\n") == [("info", line)]


@pytest.mark.parametrize("letter", ["x", "é", "\n", "\x00", "😀"])
def test_a_record_that_is_too_long_is_cut_and_still_a_record(letter: str) -> None:
    data = framed(1.0, "info", 7, letter * 200_000)
    assert len(data) <= MAX_LINE_BYTES + 1
    found = unframed(data.rstrip(b"\n"))
    assert found is not None
    kept = found[3].count(letter)
    assert found[3].endswith(f" [cut: {200_000 - kept} more characters]")
    assert kept > 5_000


@pytest.mark.parametrize(
    ("number", "level"),
    [(0, "debug"), (10, "debug"), (20, "info"), (25, "info"), (30, "warning"), (50, "error")],
)
def test_an_apps_own_levels_have_the_name_of_the_one_below(number: int, level: str) -> None:
    assert level_of(number) == level


# ---------------------------------------------------------------- tracebacks


def raised(chained: bool) -> str:  # noqa: FBT001 - a test's parameter
    try:
        try:
            raise KeyError("first")  # noqa: TRY301 - as an app would
        except KeyError as error:
            if chained:
                raise ValueError("second") from error
            raise
    except (KeyError, ValueError):
        return traceback.format_exc()


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("step", [5, 1 << 30])
def test_a_traceback_is_one_entry(step: int, *, chained: bool) -> None:
    text = raised(chained)
    assert all_of(f"before\n{text}after\n", step) == [
        ("info", "before"),
        ("error", text.rstrip("\n")),
        ("info", "after"),
    ]


def test_two_tracebacks_are_two_entries() -> None:
    text = raised(chained=False)
    assert all_of(text + text) == [("error", text.rstrip("\n"))] * 2
    assert all_of(text + "\n\nlast\n") == [
        ("error", text.rstrip("\n")),
        *[("info", "")] * 2,
        ("info", "last"),
    ]


def test_an_exception_group_is_one_entry() -> None:
    try:
        raise ExceptionGroup("both", [ValueError("a"), KeyError("b")])  # noqa: TRY301
    except ExceptionGroup:
        text = traceback.format_exc()
    assert all_of(f"{text}after\n") == [("error", text.rstrip("\n")), ("info", "after")]


FATAL = """\
Fatal Python error: Aborted

Thread 0x00007f (most recent call first):
  File "a.py", line 1 in f

Current thread 0x00007a (most recent call first):
  File "a.py", line 2 in g
  File "a.py", line 3 in <module>

Extension modules: a, b (total: 2)"""


def test_what_faulthandler_says_is_one_entry() -> None:
    assert all_of(FATAL + "\n") == [("error", FATAL)]
    assert all_of(FATAL + "\nother\n") == [("error", FATAL), ("info", "other")]
    assert all_of("half" + FATAL) == [("info", "half"), ("error", FATAL)]


def test_a_traceback_without_its_last_line_is_not_waited_for_for_ever() -> None:
    one = source()
    text = "Traceback (most recent call last):\n  File x\n"
    assert one.feed(text.encode(), 1.0, CLOCK) == []
    assert one.due == 1.0 + SECONDS
    assert one.tick(1.0, CLOCK) == []
    assert told(one.tick(1.0 + SECONDS, CLOCK)) == [("error", text.rstrip("\n"))]
    assert one.due == inf


def test_a_traceback_without_end_is_given_out_in_parts() -> None:
    text = "Traceback (most recent call last):\n" + "  File x\n" * 50_000
    found = all_of(text)
    assert len(found) > 1
    assert all(len(message) < 2 * MAX_LINE_BYTES for _, message in found[:2])


# ---------------------------------------------------------------- floods


def test_a_burst_passes_and_then_so_many_a_second() -> None:
    one = source(rate=100)
    burst = int(100 * BURST_SECONDS)
    assert len(one.feed(b"x\n" * 10_000, 0.0, CLOCK)) == burst
    assert len(one.feed(b"x\n" * 10_000, 1.0, CLOCK)) == 100
    assert len(one.feed(b"x\n" * 10_000, 1.01, CLOCK)) in (0, 1)
    assert 29_899 - burst <= one.budget.total <= 29_900 - burst
    assert len(one.feed(b"x\n" * 10_000, 1e6, CLOCK)) == burst


def test_long_lines_use_the_budget_up_sooner() -> None:
    one = source(rate=100)
    passed = one.feed((b"x" * 10 * LINE_BYTES + b"\n") * 1000, 0.0, CLOCK)
    assert len(passed) == 100 * BURST_SECONDS / 10


def test_records_count_as_well_and_no_line_is_counted_twice() -> None:
    one = source(rate=10)
    data = framed(1.0, "info", 7, "a") * 30 + b"b\n" * 70
    passed = one.feed(data, 0.0, CLOCK)
    assert len(passed) + one.budget.held == 100


def test_what_was_held_back_is_said_when_it_is_over() -> None:
    one = source(rate=10)
    one.feed(b"x\n" * 1050, 5.0, CLOCK)
    assert one.due == 5.0 + QUIET_SECONDS
    assert one.held(5.5) is None
    assert one.held(6.0) == "held back 1,000 lines of worker 1 in the last 1.0 s"
    assert one.due == inf


def test_a_flood_that_goes_on_is_told_of_now_and_then() -> None:
    one = source(rate=1)
    said = []
    for tenth in range(int(REPORT_SECONDS * 25)):
        now = tenth / 10
        one.feed(b"x\n" * 10, now, CLOCK)
        if (text := one.held(now)) is not None:
            said.append(text)
    assert len(said) == 2
    assert all(text.endswith("of worker 1 in the last 10.0 s") for text in said)


def test_the_end_tells_of_what_was_held_back() -> None:
    one = source(rate=1)
    one.feed(b"x\n" * 6, 0.0, CLOCK)
    assert one.held(0.0, is_over=True) == "held back 1 line of worker 1 in the last 0.1 s"
    assert one.held(0.0, is_over=True) is None


def test_no_limit_holds_back_nothing() -> None:
    assert len(source().feed(b"x\n" * 100_000, 0.0, CLOCK)) == 100_000


def test_another_limit_is_in_effect_at_once() -> None:
    budget = Budget(1, 0.0)
    while budget.take(1):
        pass
    budget.limit(None, 0.0)
    assert budget.take(1 << 40)
    budget.limit(10, 0.0)
    assert budget.lines(0.0) == 10 * BURST_SECONDS
