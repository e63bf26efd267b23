"""What may be asked for a task, as an app writes it: `@task(retries=3)`, `.options(delay=5)`.

Checked where it is written, and packed into the task's slot (ipc.terms) when it is sent.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from math import inf
from typing import TypedDict

from procd.ipc import layout, terms
from procd.ipc.terms import Terms

FIRST, LAST = 1, 9  # priorities: the token's message type
AT_LEAST_ONCE, AT_MOST_ONCE, DURABLE = "at_least_once", "at_most_once", "durable"
YEAR = 365 * 86400.0

# What must outlive what, as flags of a meta: nothing, every process, a power cut as well.
_DELIVERIES = {AT_MOST_ONCE: terms.AT_MOST_ONCE, AT_LEAST_ONCE: 0, DURABLE: layout.DURABLE}

_NUMBER = (int, float)
# Types, least and greatest value.
_RULES: dict[str, tuple[tuple[type, ...], float, float]] = {
    "retries": ((int,), 0, 1000),
    "retry_delay": (_NUMBER, 0, YEAR),
    "retry_max_delay": (_NUMBER, 0, YEAR),
    "timeout": (_NUMBER, 0.001, inf),
    "priority": ((int,), FIRST, LAST),
    "ttl": (_NUMBER, 0.001, 100 * YEAR),
    "max_attempts": ((int,), 1, 60),
    "delay": (_NUMBER, 0, 100 * YEAR),
    "at": ((int, float, datetime), 0, inf),
}


class Given(TypedDict, total=False):
    """What an app may write; None is what stands in Options."""

    retries: int  # after an exception in the handler
    retry_delay: float  # seconds before the first retry, doubled for each later one
    retry_max_delay: float
    timeout: float | None  # seconds a run may take; None = task_timeout, inf = never mind
    priority: int  # 1 (first) .. 9
    ttl: float | None  # seconds after which it is not begun any more
    max_attempts: int | None  # processes that it may cost; None = task_max_attempts
    delay: float | None  # seconds before it is begun
    at: float | datetime | None  # the same as a time: seconds since 1970, or an aware datetime
    delivery: str  # at_least_once, at_most_once, durable
    key: str | None  # one live task each: a second send gets the first's TaskRef


@dataclass(frozen=True, slots=True)
class Options:
    """Checked ones; see Given."""

    retries: int = 0
    retry_delay: float = 1.0
    retry_max_delay: float = 600.0
    timeout: float | None = None
    priority: int = 5
    ttl: float | None = None
    max_attempts: int | None = None
    delay: float | None = None
    at: float | datetime | None = None
    delivery: str = AT_LEAST_ONCE
    key: str | None = None
    _packed: dict[float | None, tuple[int, float, bytes]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )  # by the config's timeout, where no clock and no key is in it

    def but(self, given: Given) -> Options:
        """Return these with others in place of some.

        Raises TypeError, ValueError that name the option and what it takes.
        """
        for name, value in given.items():
            _check(name, value)
        # The later one of these two counts, also over what the decorator said.
        if "delay" in given and "at" not in given:
            given = {**given, "at": None}
        elif "at" in given and "delay" not in given:
            given = {**given, "delay": None}
        made = replace(self, **given)
        if made == PLAIN:
            return PLAIN
        if made.delay is not None and made.at is not None:
            raise ValueError("delay and at: one of them")
        if made.delivery == AT_MOST_ONCE and made.retries:
            raise ValueError("retries with delivery='at_most_once': it would run more than once")
        return made

    def given(self) -> dict[str, object]:
        """Return what makes these of PLAIN, by but(), in values that travel."""
        return {
            name: getattr(self, name)
            for name, default in _DEFAULTS.items()
            if getattr(self, name) != default
        }

    def due(self, now: float) -> float:
        """Return when it may begin, by the wall clock; 0 = at once."""
        at = self.at.timestamp() if isinstance(self.at, datetime) else self.at
        due = now + self.delay if self.delay is not None else at or 0.0
        return due if due > now else 0.0

    def pack(self, now: float, timeout: float | None, key: int = 0) -> tuple[int, float, bytes]:
        """Return flags, when it is due, and its terms if any.

        *timeout* is that of the config, *key* what stands for its own in the slot.
        """
        packed = self._packed.get(timeout)
        if packed is None:
            packed = self._pack(now, timeout, key)
            if (self.delay, self.at, self.ttl, self.key) == (None, None, None, None):
                self._packed[timeout] = packed
        return packed

    def _pack(self, now: float, timeout: float | None, key: int) -> tuple[int, float, bytes]:
        if timeout is None and replace(self, priority=PLAIN.priority) == PLAIN:
            return 0, 0.0, b""
        limit = timeout if self.timeout is None else self.timeout
        due = self.due(now)
        packed = Terms(
            due=due,
            expires=now + self.ttl if self.ttl is not None else 0.0,
            timeout=limit if limit is not None and limit != inf else 0.0,
            retry_delay=self.retry_delay,
            retry_max_delay=self.retry_max_delay,
            retries=self.retries,
            max_attempts=self.max_attempts or 0,
            key=key,
        ).pack()
        return terms.TERMS | _DELIVERIES[self.delivery], due, packed


def retried(these: Terms, now: float) -> Terms:
    """Return the terms of a task whose handler has raised, with the time of its next try.

    Up to a half earlier than the doubled pause, at random: what failed together comes apart.
    """
    pause = min(these.retry_max_delay, these.retry_delay * 2.0 ** min(these.failures, 60))
    due = now + pause * random.uniform(0.5, 1)  # noqa: S311 - nothing secret
    return these._replace(due=due, failures=these.failures + 1)


PLAIN = Options()
_DEFAULTS = {each.name: each.default for each in fields(Options) if each.init}


def _check(name: str, value: object) -> None:
    if name not in _DEFAULTS:
        raise TypeError(f"no option {name!r}; there are {', '.join(_DEFAULTS)}")
    if name == "delivery":
        _check_delivery(value)
        return
    if name == "key":
        _check_key(value)
        return
    types, low, high = _RULES[name]
    if value is None and _DEFAULTS[name] is None:
        return
    if not isinstance(value, types) or isinstance(value, bool):
        wanted = " or ".join(each.__name__ for each in types)
        raise TypeError(f"{name}={value!r}: it takes {wanted}, {_span(low, high)}")
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{name}={value!r}: a datetime without a time zone")
    elif isinstance(value, int | float) and not low <= value <= high:
        raise ValueError(f"{name}={value!r}: it takes {_span(low, high)}")


def _check_delivery(value: object) -> None:
    if value not in _DELIVERIES:
        raise ValueError(f"delivery={value!r}: it takes {', '.join(_DELIVERIES)}")


def _check_key(value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"key={value!r}: it takes str")
    if value == "":
        raise ValueError("key='': it takes at least one character")


def _span(low: float, high: float) -> str:
    return f"at least {low:g}" if high == inf else f"{low:g} to {high:g}"
