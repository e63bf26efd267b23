"""The tally: counted once, read by another process, and the last samples only."""

from __future__ import annotations

from procd.ipc.foreign.message import Reason
from procd.ipc.tally import HEAD_BYTES, SAMPLES, Count, Tally
from tests.kernel.forked import Say, forked


def test_what_a_process_counted_outlives_it() -> None:
    tally = Tally()

    def count(_: Say) -> str:
        tally.count(Count.TAKEN)
        tally.refuse(7, b"\xffbytes", Reason.SYSTEM, "Grund: ä", 5.0)
        return "counted"

    for _ in range(2):
        with forked(count) as child:
            assert child.line() == "counted"
    assert (tally.get(Count.TAKEN), tally.refused()) == (2, {"system": 2})
    assert tally.samples()[0] == (5.0, 7, 6, "system", b"\xffbytes", "Grund: ä")


def test_only_the_last_samples_are_kept_and_only_their_heads() -> None:
    tally = Tally()
    for number in range(3 * SAMPLES):
        tally.refuse(number + 1, b"x" * 8192, Reason.FILE, "why" * 1000, float(number))
    samples = tally.samples()
    assert [sample.mtype for sample in samples] == list(range(2 * SAMPLES + 1, 3 * SAMPLES + 1))
    assert (samples[0].size, samples[0].head) == (8192, b"x" * HEAD_BYTES)
    assert tally.refused() == {"file": 3 * SAMPLES}
