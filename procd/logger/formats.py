"""How an entry is written, and read back by `procd logs`. Pure.

    text     2026-11-23T15:04:05.123 info worker-0@3[71] what it says
    json     {"time": "2026-11-23T14:04:05.123456Z", "level": "info", "role": "worker", ...}
    journal  the fields of one datagram of journald's native protocol

Text has the local time and the name of the process: role-id@generation[pid]. A message of
several lines is one line of JSON, one entry of the journal, and in text as many lines as it has.
"""

from __future__ import annotations

import calendar
import json
import re
import time
from collections.abc import Iterator

from procd.logger.entry import LEVELS, Entry, Who

FORMATS = ("text", "json", "journal")
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}  # syslog(3)
_COLOURS = {"debug": "2", "warning": "33", "error": "31"}
_TEXT = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{3}) (debug|info|warning|error) "
    r"([a-z]+)(?:-(\d+))?(?:@(\d+))?\[(\d+)\] (.*)",
    re.DOTALL,
)


def text(entry: Entry, *, colour: bool = False) -> str:
    """Return an entry for people, without the last newline."""
    who = entry.who
    number = "" if who.id is None else f"-{who.id}"
    generation = "" if who.generation is None else f"@{who.generation}"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(entry.time))
    head = f"{stamp}.{int(entry.time * 1000) % 1000:03d}"
    name = f"{who.role}{number}{generation}[{who.pid}]"
    if not colour:
        return f"{head} {entry.level} {name} {entry.message}"
    level = entry.level
    if level in _COLOURS:
        level = f"\x1b[{_COLOURS[level]}m{level}\x1b[0m"
    return f"\x1b[2m{head}\x1b[0m {level} \x1b[36m{name}\x1b[0m {entry.message}"


def as_json(entry: Entry) -> str:
    """Return an entry for machines: one line."""
    who = entry.who
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(entry.time))
    fields = {
        "time": f"{seconds}.{int(entry.time * 1_000_000) % 1_000_000:06d}Z",
        "level": entry.level,
        "role": who.role,
        "id": who.id,
        "pid": who.pid,
        "generation": who.generation,
        "message": entry.message,
    }
    return json.dumps(fields, ensure_ascii=False)


def line(entry: Entry, form: str, *, colour: bool = False) -> bytes:
    """Return an entry with its newline, as text or json."""
    written = as_json(entry) if form == "json" else text(entry, colour=colour)
    return (written + "\n").encode("utf-8", "backslashreplace")


def journal(entry: Entry, identifier: str) -> bytes:
    """Return one datagram for journald (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    who = entry.who
    fields = {
        "MESSAGE": entry.message,
        "PRIORITY": _PRIORITIES[entry.level],
        "SYSLOG_IDENTIFIER": identifier,
        "SYSLOG_PID": who.pid,
        "PROCD_ROLE": who.role,
        "PROCD_WORKER": who.id,
        "PROCD_GENERATION": who.generation,
    }
    parts = (_field(name, value) for name, value in fields.items() if value is not None)
    return b"".join(parts)


def _field(name: str, value: object) -> bytes:
    data = str(value).encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


# Reading


def entries(lines: Iterator[str]) -> Iterator[Entry]:
    """Yield the entries of lines (without newlines) in either form.

    A line that begins none belongs to the one before it.
    """
    last: Entry | None = None
    more: list[str] = []
    for each in lines:
        found = parsed(each)
        if found is None:
            more.append(each)
            continue
        if last is not None:
            yield _whole(last, more)
        last, more = found, []
    if last is not None:
        yield _whole(last, more)


def _whole(entry: Entry, more: list[str]) -> Entry:
    return entry._replace(message="\n".join((entry.message, *more))) if more else entry


def parsed(written: str) -> Entry | None:
    """Return the entry that begins with this line; None if none does."""
    if written.startswith("{"):
        return _of_json(written)
    found = _TEXT.fullmatch(written)
    if found is None:
        return None
    stamp, milliseconds, level, role, number, generation, pid, message = found.groups()
    seconds = time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S"))
    who = Who(role, int(pid), _number(number), _number(generation))
    return Entry(seconds + int(milliseconds) / 1000, level, who, message)


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _of_json(written: str) -> Entry | None:
    try:
        fields = json.loads(written)
        seconds, _, fraction = str(fields["time"]).rstrip("Z").partition(".")
        at = calendar.timegm(time.strptime(seconds, "%Y-%m-%dT%H:%M:%S"))
        who = Who(fields["role"], fields["pid"], fields["id"], fields["generation"])
        found = Entry(at + float(f"0.{fraction}"), fields["level"], who, str(fields["message"]))
    except (ValueError, KeyError, TypeError):
        return None
    return found if found.level in LEVELS else None
