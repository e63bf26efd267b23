"""A connection's state moves only if it comes back as it was."""

from __future__ import annotations

import datetime as dt
import enum
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.ipc import wire
from procd.worker.movable import MAX_BYTES, NOT_PLAIN, NOT_SAME, TOO_LARGE, Stays, packed

Point = namedtuple("Point", "x y")  # noqa: PYI024 - any tuple will do
NOW = dt.datetime(2026, 11, 24, 9, 30, tzinfo=dt.UTC)

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 99), inner),
    max_leaves=20,
)


class Level(enum.IntEnum):
    LOW = 1


@given(plain)
def test_plain_state_moves_and_comes_back_equal(value: Any) -> None:
    state = {"value": value}
    assert wire.unpack(packed(state)) == state


@pytest.mark.parametrize("state", [{}, {"rest": b""}, {1: [{"a": None}]}, {"at": NOW}, {"x": -0.5}])
def test_state_as_apps_have_it_moves(state: Any) -> None:
    assert wire.unpack(packed(state)) == state


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"a": (1, 2)}, "state['a']: tuple"),
        ({"a": [0, {"b": Point(1, 2)}]}, "state['a'][1]['b']: Point"),
        ({"a": Level.LOW}, "state['a']: Level"),
        ({Level.LOW: 1}, "key <Level.LOW: 1> of state: Level"),
        (defaultdict(list), "state: defaultdict"),
        ({"a": OrderedDict(b=1)}, "state['a']: OrderedDict"),
        ({"a": float("nan")}, "state['a']: nan"),
    ],
)
def test_state_that_would_come_back_as_something_else_stays(state: Any, where: str) -> None:
    with pytest.raises(Stays) as stays:
        packed(state)
    assert (stays.value.why, stays.value.detail) == (NOT_SAME, where)


@pytest.mark.parametrize("value", [{1}, object(), 2**64, lambda: None])
def test_state_that_does_not_pack_stays_and_names_the_part(value: Any) -> None:
    with pytest.raises(Stays) as stays:
        packed({"odd": value})
    assert stays.value.why == NOT_PLAIN
    assert stays.value.detail.startswith("data['odd']: ")


def test_state_that_no_message_carries_stays() -> None:
    packed({"a": b"x" * (MAX_BYTES - 100)})
    with pytest.raises(Stays) as stays:
        packed({"a": b"x" * MAX_BYTES})
    assert stays.value.why == TOO_LARGE


def test_state_that_holds_itself_stays() -> None:
    state: dict[object, object] = {}
    state["me"] = state
    with pytest.raises(Stays) as stays:
        packed(state)
    assert stays.value.why == NOT_PLAIN
