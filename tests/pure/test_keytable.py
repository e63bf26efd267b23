"""The key table: one live task a key, whatever order sends, ends and deaths come in."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from procd.ipc import keytable
from procd.ipc.keytable import OVER, Found, hashed, look
from procd.ipc.layout import BUCKET_ENTRIES, Layout

BUCKETS = 4
keys = st.integers(1, 40)


class Model:
    """A table of small buckets, and which task is live with which key (0 = with none)."""

    def __init__(self, entries: int) -> None:
        self.table = [[0] * entries for _ in range(BUCKETS)]
        self.live: dict[int, int] = {}
        self.last = 0

    def key_of(self, token: int) -> int:
        return self.live.get(token, OVER)

    def look(self, key: int) -> Found:
        bucket = self.table[keytable.bucket_of(key, BUCKETS)]
        return look(bucket, key, BUCKETS, self.key_of)

    def send(self, key: int, dies: str, *, reuses: bool) -> None:
        """Send as arena.accept does, or die on the way; *reuses* a token that never was used."""
        found = self.look(key)
        if found.token or found.free < 0 or dies == "before":
            return
        self.last += not reuses
        token = self.last or 1
        if token in self.live:
            return
        self.table[keytable.bucket_of(key, BUCKETS)][found.free] = token
        if dies == "between":
            return
        self.live[token] = key

    def send_plain(self) -> None:
        """A task without a key: also in a slot whose last sender died between entry and word."""
        if self.last not in self.live:
            self.live[self.last] = 0

    def end(self, place: int) -> None:
        if self.live:
            del self.live[list(self.live)[place % len(self.live)]]


Step = Callable[[Model], None]


def sending(key: int, dies: str, *, reuses: bool) -> Step:
    return lambda model: model.send(key, dies, reuses=reuses)


steps = st.lists(
    st.one_of(
        st.builds(
            sending, keys, st.sampled_from(["no", "no", "before", "between"]), reuses=st.booleans()
        ),
        st.integers(0, 100).map(lambda place: lambda model: model.end(place)),
        st.just(Model.send_plain),
    ),
    max_size=80,
)


@given(steps, st.integers(1, 12))
def test_no_two_live_tasks_have_one_key(plan: list[Step], entries: int) -> None:
    model = Model(entries)
    for step in plan:
        step(model)
        with_key = [key for key in model.live.values() if key]
        assert len(with_key) == len(set(with_key))


@given(steps, st.integers(1, 12), keys)
def test_a_live_task_is_found_by_its_key_and_only_by_that(
    plan: list[Step], entries: int, key: int
) -> None:
    model = Model(entries)
    for step in plan:
        step(model)
    found = model.look(key)
    assert model.key_of(found.token) == key if found.token else key not in model.live.values()


@given(steps, st.integers(1, 12))
def test_a_key_is_free_once_its_task_is_over_and_there_is_room(
    plan: list[Step], entries: int
) -> None:
    model = Model(entries)
    for step in plan:
        step(model)
    while model.live:
        model.end(0)
    assert all(model.look(key) == (0, 0) for key in range(1, 41))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=BUCKET_ENTRIES), st.integers(1, 2**64 - 1))
def test_any_bytes_for_a_table_find_no_task_that_is_not_live(entries: list[int], key: int) -> None:
    found = look(entries, key, BUCKETS, lambda _: OVER)
    assert found == (0, 0 if entries else -1)


def test_a_full_bucket_has_no_free_entry() -> None:
    assert look([1, 2], 9, 1, lambda token: token) == (0, -1)
    assert look([1, 2], 2, 1, lambda token: token) == (2, -1)


@given(st.none() | st.text(), st.text(min_size=1), st.none() | st.text(), st.text(min_size=1))
def test_names_and_keys_do_not_run_into_one_another(
    name: str | None, key: str, other_name: str | None, other_key: str
) -> None:
    is_same = (name, key) == (other_name, other_key)
    assert (hashed(name, key) == hashed(other_name, other_key)) is is_same
    assert 0 < hashed(name, key) < 2**64


@given(st.integers(1, 200_000))
def test_the_table_has_two_entries_for_each_slot(slots: int) -> None:
    layout = Layout.of(slots, 64, 1)
    assert layout.key_buckets * BUCKET_ENTRIES >= 2 * layout.slots
    assert layout.words_at + 8 * layout.slots <= layout.keys_at
    assert layout.keys_at + 8 * BUCKET_ENTRIES * layout.key_buckets <= layout.bodies_at
