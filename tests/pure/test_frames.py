"""Frames on a stream: whole however they are cut, and a length is believed by nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.ipc import frames, wire
from procd.ipc.frames import FROM_CLIENT, FROM_GATE, Frame, Kind, Reader

MOST = 50
frame = st.tuples(
    st.sampled_from(sorted(FROM_CLIENT)), st.integers(0, 2**32 - 1), st.binary(max_size=80)
)


def written(kind: Kind, ask: int, data: bytes) -> bytes:
    return frames.head(kind, ask, len(data)) + data


@given(st.lists(frame, max_size=8), st.lists(st.integers(1, 200), min_size=1))
def test_frames_arrive_as_they_were_written(
    sent: list[tuple[Kind, int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(written(*each) for each in sent)
    reader, found, turn = Reader(FROM_CLIENT, MOST), [], 0
    while stream:
        size = cuts[turn % len(cuts)]
        found += reader.feed(stream[:size])
        stream, turn = stream[size:], turn + 1
    assert found == [
        Frame(kind, ask, len(data), data if len(data) <= MOST else None) for kind, ask, data in sent
    ]
    assert reader.assembling == 0


def test_what_is_coming_is_told_from_its_head_on() -> None:
    reader = Reader(FROM_CLIENT, 1000)
    assert reader.feed(frames.head(Kind.DATA, 1, 900)) == []
    assert reader.assembling == 900
    assert reader.feed(b"x" * 899) == []
    assert reader.feed(b"x") == [Frame(Kind.DATA, 1, 900, b"x" * 900)]
    reader.feed(frames.head(Kind.DATA, 1, 1001))
    assert reader.assembling == 0


@given(st.binary(min_size=frames.HEAD.size, max_size=200))
def test_random_bytes_are_refused_at_the_head_or_passed_over(data: bytes) -> None:
    reader = Reader(FROM_GATE, 10)
    if data[0] in FROM_GATE:
        assert all(each.data is None or len(each.data) <= 10 for each in reader.feed(data[:16]))
    else:
        with pytest.raises(wire.Undecodable):
            reader.feed(data)


@pytest.mark.parametrize("value", [None, [], [1], [1, "x"], [1, 5], [3, 5], {"a": 1}])
def test_a_greeting_of_another_kind_is_not_understood(value: object) -> None:
    assert frames.read_hello(frames.hello(5)) == 5
    with pytest.raises(wire.Undecodable):
        frames.read_hello(wire.pack(value))
