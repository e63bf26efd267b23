"""What a foreign message means: recognised, refused by reason, and never anything else."""

from __future__ import annotations

import contextlib
import random
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.mutations import Mutator
from procd.ipc.foreign import envelope, php, swoole
from procd.ipc.foreign.codec import CODECS
from procd.ipc.foreign.envelope import FORMATS, SWOOLE_FAILED, Envelope, Reply, Status
from procd.ipc.foreign.message import Reason, Refused, Request, Rules, understand
from procd.ipc.foreign.swoole import Flag, TaskMessage, TmpFile
from procd.ipc.wire import Undecodable
from tests.service.daemon import scaled

AUTO = Rules()
REASONS = (Reason.EMPTY, Reason.SYSTEM, Reason.UNDECODABLE, Reason.REPLY_TYPE)
TYPE = 2**22 + 7
SECONDS = 0.5  # of this thread's own time; a hundredth of it is much
# As large as a message can be, and of a shape that makes some parsers slow or gives them up.
PITS = [
    b"i:" + b"9" * 8000 + b";",
    b"d:" + b"9" * 8000 + b";",
    b"a:1:{i:0;" * 700 + b"N;" + b"}" * 700,
    b's:5:"' + b'";' * 4000,
    b'O:8:"' + b"{" * 8000 + b"}",
    b"a:900:{" + b"".join(b"i:%d;N;" % n for n in range(900)) + b"}",
    b"[" * 4096 + b"]" * 4096,
    b'{"":' * 1300 + b"1" + b"}" * 1300,
    b"[" + b"9" * 8000 + b"]",
    b"[1e" + b"9" * 4000 + b"]",
    b'["' + b"\\ud800" * 1300 + b'"]',
    b"\x91" * 8192,
    b"\x81" * 8192,
    b"\xdd\xff\xff\xff\xff" * 1600,
    b"\xf0\x9f" * 4096,
]
HELLO = bytes.fromhex("01000000 0f00 0000 07 00 0400") + b"Hello from PHP!"


def reason(data: bytes, rules: Rules = AUTO) -> Reason:
    with pytest.raises(Refused) as refused:
        understand(data, rules)
    return refused.value.reason


def test_the_seeds_own_message_is_a_task() -> None:
    assert understand(HELLO, AUTO) == Request("Hello from PHP!", None, None, bytes)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"N;", None),
        (b"i:-7;", -7),
        (b"d:0.1;", 0.1),
        (b"b:1;", True),
        (b's:5:"a";b;";', 'a";b;'),
        (b"a:0:{}", []),
        (b"i:x;", "i:x;"),
        (b"a:2:{ and so on", "a:2:{ and so on"),
        (b"[1, 2]", [1, 2]),
        (b"{}", {}),
        (b"{x}", "{x}"),
        (b"5", "5"),
        (b"true", "true"),
        (b"\x81\xa1n\x07", {"n": 7}),
        (b"\x93\x01\x02\x03", [1, 2, 3]),
        (b"\x93\x01\x02", b"\x93\x01\x02"),
        (b"\xdc\x9c", "\u071c"),
        (b"\xc3(", b"\xc3("),
        (b"\0", "\0"),
    ],
)
def test_a_bare_message_is_recognised(data: bytes, value: object) -> None:
    found = understand(data, AUTO).value
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "data",
    [
        b'O:8:"stdClass":0:{}',
        b'C:11:"ArrayObject":1:{x}',
        b'E:4:"Suit:A";',
        b"a:1:{i:0;R:1;}",
        b"R:1;",
        b's:9:"ab";',
        b"a:9:{i:0;i:1;}",
    ],
)
def test_what_php_wrote_and_is_no_data_is_refused_and_not_taken_for_text(data: bytes) -> None:
    assert reason(data) is Reason.UNDECODABLE


@pytest.mark.parametrize("header_bytes", [12, 40])
def test_a_swoole_task_says_itself_what_it_holds(header_bytes: int) -> None:
    def sent(body: bytes | TmpFile, flags: int) -> Request:
        return understand(swoole.build(TaskMessage(9, body, flags), header_bytes), AUTO)

    assert sent(b"i:7;", Flag.NONBLOCK).value == "i:7;"
    assert sent(b"i:7;", Flag.SERIALIZE).value == 7
    assert sent(b"\xff", Flag.NONBLOCK).value == b"\xff"
    file = sent(TmpFile(b"/tmp/x", 4), Flag.TMPFILE | Flag.SERIALIZE)
    assert file.file == TmpFile(b"/tmp/x", 4)
    assert file.decode(b"i:7;") == 7
    with pytest.raises(Refused, match="not PHP"):
        file.decode(b"i:7")


@pytest.mark.parametrize("event", [0, 1, 4, 10, 16, 17, 25, 30])
def test_other_messages_of_swoole_are_refused_as_such(event: int) -> None:
    old = struct.pack("<iHhBBH", 0, 0, 0, event, 0, 0)
    new = struct.pack("<qQIhBBHHId", 0, 0, 0, 0, event, 0, 0, 0, 0, 0.0)
    assert (reason(old), reason(new)) == (Reason.SYSTEM, Reason.SYSTEM)


def test_nothing_at_all_is_empty() -> None:
    assert reason(b"") is Reason.EMPTY


@pytest.mark.parametrize("codec", FORMATS)
def test_a_named_codec_takes_that_alone(codec: str) -> None:
    rules = Rules(codec)
    value = b"\xffbytes" if codec == "raw" else "text"
    assert understand(CODECS[codec].encode(value), rules).value == value
    if codec == "raw":
        assert understand(HELLO, rules).value == HELLO
    elif codec != "text":
        assert reason(HELLO, rules) is Reason.UNDECODABLE


def test_strings_stay_bytes_where_that_is_wanted() -> None:
    rules = Rules(strings="bytes")
    assert understand(b"abc", rules).value == b"abc"
    assert understand(b's:3:"abc";', rules).value == b"abc"
    assert understand(HELLO, rules).value == b"Hello from PHP!"
    assert understand(b'["abc"]', rules).value == ["abc"]


# ---------------------------------------------------------------- answers


def test_an_envelope_is_these_bytes() -> None:
    data = envelope.build(Envelope("php", Status.REQUEST, TYPE, 5, b"i:7;"))
    assert data == bytes.fromhex(
        "c1504451 01 04 00 00 0700400000000000 0500000000000000" + b"i:7;".hex()
    )
    assert envelope.parse(data) == Envelope("php", Status.REQUEST, TYPE, 5, b"i:7;")
    assert understand(data, AUTO) == Request(7, Reply(TYPE, "php", 5), None, bytes)


@pytest.mark.parametrize("reply_type", [1, 2**22, -5])
def test_an_answer_among_the_requests_is_refused(reply_type: int) -> None:
    data = envelope.build(Envelope("json", Status.REQUEST, reply_type, 5, b"7"))
    assert reason(data) is Reason.REPLY_TYPE


@pytest.mark.parametrize("place", [4, 5, 6, 7])
def test_a_damaged_envelope_is_refused(place: int) -> None:
    data = bytearray(envelope.build(Envelope("json", Status.REQUEST, TYPE, 5, b"7")))
    data[place] = 99
    assert reason(bytes(data)) is Reason.UNDECODABLE
    assert reason(bytes(data[:20])) is Reason.UNDECODABLE


def test_an_envelope_with_an_answer_is_no_request() -> None:
    data = envelope.answer(Reply(TYPE, "json", 5), 7, None)
    assert reason(data) is Reason.UNDECODABLE


def test_who_asks_by_config_is_answered_in_his_own_format() -> None:
    rules = Rules(reply_type=TYPE)
    assert understand(b"i:7;", rules).reply == Reply(TYPE, "php")
    assert understand(b"hello", rules).reply == Reply(TYPE, "text")
    assert understand(b"[1]", rules).reply == Reply(TYPE, "json")
    assert understand(HELLO, rules).reply == Reply(TYPE, "php", swoole=(1, 12))
    quiet = swoole.build(TaskMessage(1, b"x", Flag.NOREPLY), 40)
    assert understand(quiet, rules).reply is None


@pytest.mark.parametrize("header_bytes", [12, 40])
def test_a_swoole_task_is_answered_by_its_own_header(header_bytes: int) -> None:
    reply = Reply(TYPE, "php", swoole=(9, header_bytes))

    def answered(value: object, failure: str | None = None) -> TaskMessage:
        return swoole.parse(envelope.answer(reply, value, failure), header_bytes)[0]

    text, value = answered("hello"), answered({"n": 7})
    assert (text.task_id, text.body, text.is_serialized) == (9, b"hello", False)
    assert (value.body, value.is_serialized) == (php.dump({"n": 7}), True)
    failed = answered(None, "ValueError: no")
    assert (failed.body, failed.flags) == (b"ValueError: no", SWOOLE_FAILED)


@pytest.mark.parametrize("codec", FORMATS)
def test_an_envelope_tells_a_result_from_a_failure(codec: str) -> None:
    reply = Reply(TYPE, codec, 5)
    result = envelope.parse(envelope.answer(reply, "text", None))
    failure = envelope.parse(envelope.answer(reply, None, "ValueError: no"))
    assert (result.status, result.number) == (Status.RESULT, 5)
    assert (failure.status, failure.number) == (Status.FAILURE, 5)
    text = CODECS[codec].decode(failure.body)
    assert text in ("ValueError: no", b"ValueError: no")


def test_a_result_that_its_format_cannot_have_is_a_failure() -> None:
    found = envelope.parse(envelope.answer(Reply(TYPE, "json", 5), b"\xff", None))
    assert found.status is Status.FAILURE
    assert b"JSON has no bytes" in found.body


# ---------------------------------------------------------------- whatever the bytes are


@settings(max_examples=300)
@given(st.binary(max_size=300), st.sampled_from(["auto", *FORMATS]))
def test_any_bytes_are_understood_or_refused(data: bytes, codec: str) -> None:
    found: Request | Reason
    try:
        found = understand(data, Rules(codec, reply_type=TYPE))
    except Refused as refused:
        found = refused.reason
    assert isinstance(found, Request) or found in REASONS


@pytest.mark.heavy
def test_damaged_messages_are_understood_or_refused_and_none_takes_long() -> None:
    mutator = Mutator(random.Random(7), [b"/etc/passwd", b"../x"])
    longest = 0.0
    for _ in range(scaled(1_000_000)):
        data, _ = mutator.next()
        began = time.thread_time()
        with contextlib.suppress(Refused):
            understand(data, AUTO)
        longest = max(longest, time.thread_time() - began)
    assert longest < SECONDS


@pytest.mark.parametrize("codec", ["auto", "json", "msgpack", "php"])
@pytest.mark.parametrize("data", PITS, ids=lambda data: repr(data[:12]))
def test_what_is_made_to_take_long_does_not(data: bytes, codec: str) -> None:
    began = time.thread_time()
    with contextlib.suppress(Refused):
        understand(data, Rules(codec))
    assert time.thread_time() - began < SECONDS


@settings(max_examples=100)
@given(st.binary(max_size=100))
def test_an_envelopes_parser_refuses_or_builds_the_same_again(data: bytes) -> None:
    try:
        found = envelope.parse(envelope.MAGIC + data)
    except Undecodable:
        return
    assert envelope.build(found) == envelope.MAGIC + data
