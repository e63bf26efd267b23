"""Our serialize() beside PHP's own: the same bytes, the same values, the same refusals."""

from __future__ import annotations

import base64
import math
import random
import struct

import pytest
from hypothesis import given, settings

from procd.ipc.foreign import php as codec
from procd.ipc.wire import MAX_DEPTH, Undecodable
from tests.interop import php
from tests.pure.test_foreign_php import VECTORS, values

AGAIN = "fn($s) => serialize(unserialize($s, ['allowed_classes' => false]))"


def test_php_writes_each_vector_as_we_do() -> None:
    blobs = [data for _, data in VECTORS]
    assert php.mapped(AGAIN, blobs) == blobs


@settings(max_examples=15)
@given(values)
def test_php_reads_what_we_write_and_writes_the_same(value: object) -> None:
    data = codec.dump(value)
    assert php.mapped(AGAIN, [data]) == [data]


def test_many_random_values_are_the_same_bytes_in_php() -> None:
    rng = random.Random(5)
    made = [codec.dump(some_value(rng, 0)) for _ in range(5000)]
    for ours, theirs in zip(made, php.mapped(AGAIN, made), strict=True):
        assert theirs == ours


def some_value(rng: random.Random, depth: int) -> object:
    match rng.randrange(9 if depth < 4 else 6):
        case 0:
            return rng.choice([None, True, False])
        case 1:
            return rng.choice([rng.getrandbits(63), -rng.getrandbits(63), rng.randint(-9, 9)])
        case 2 | 3:
            return some_float(rng)
        case 4 | 5:
            return rng.choice([rng.randbytes(rng.randrange(9)), some_text(rng)])
        case 6:
            return [some_value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case _:
            keys = {rng.choice([rng.randint(-9, 9), f"k{rng.randint(0, 9)}"]) for _ in range(3)}
            return {key: some_value(rng, depth + 1) for key in sorted(keys, key=str)}


def some_text(rng: random.Random) -> str:
    return "".join(rng.choices('aé我😀";:{}0', k=rng.randrange(9)))


def some_float(rng: random.Random) -> float:
    number: float
    (number,) = struct.unpack("<d", rng.randbytes(8))
    if math.isnan(number):  # of many, and PHP knows one
        number = math.nan
    return rng.choice(
        [number, rng.uniform(-10, 10), round(rng.uniform(0, 1e18)), 10.0 ** rng.randint(-20, 20)]
    )


def test_every_power_of_ten_and_its_neighbours_are_written_as_php_writes_them() -> None:
    numbers = [
        float(f"{digits}e{power}") for power in range(-30, 31) for digits in ("1", "1.5", "9.99")
    ]
    numbers += [math.nextafter(number, math.inf) for number in numbers]
    made = [codec.dump(number) for number in numbers]
    assert php.mapped(AGAIN, made) == made


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("null", None),
        ("PHP_INT_MIN", -(2**63)),
        ("0.1 + 0.2", 0.1 + 0.2),
        ("INF", math.inf),
        ("'我'", "我"),
        (r'"\xff\x00"', b"\xff\0"),
        ("[]", []),
        ("[1, [true, null]]", [1, [True, None]]),
        ("['a' => 1, 5 => 'b']", {"a": 1, 5: "b"}),
        ("['5' => 'b']", {5: "b"}),
        ("['0' => 'a', '1' => 'b']", ["a", "b"]),
        ("[1 => 'b', 0 => 'a']", {1: "b", 0: "a"}),
        ("[true => 'x']", {1: "x"}),
        ("[null => 'x']", {"": "x"}),
        ("array_filter([1, 0, 2])", {0: 1, 2: 2}),
        ("range(0, 999)", list(range(1000))),
    ],
)
def test_what_php_makes_is_read(expression: str, value: object) -> None:
    printed = php.evaluate(f"echo base64_encode(serialize({expression}));")
    assert codec.load(base64.b64decode(printed)) == value


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("$x = new stdClass; $x->a = 1;", "an object is refused"),
        ("$x = [new DateTime('@0')];", "an object is refused"),
        ("$x = new ArrayObject([1]);", "an object"),
        ("enum Suit { case Hearts; } $x = Suit::Hearts;", "an enum case is refused"),
        ("$a = [1]; $a['self'] = &$a; $x = $a;", "a reference is refused"),
        ("$o = 5; $x = [&$o, &$o];", "a reference is refused"),
    ],
)
def test_what_is_no_data_in_php_is_refused_by_name(code: str, name: str) -> None:
    with pytest.raises(Undecodable, match=name):
        codec.load(php.evaluate(f"{code} echo serialize($x);").encode("latin-1"))


def test_php_takes_the_deepest_that_we_write() -> None:
    value: object = 7
    for _ in range(MAX_DEPTH):
        value = [value]
    assert php.mapped(AGAIN, [codec.dump(value)]) == [codec.dump(value)]


@settings(max_examples=10)
@given(values)
def test_what_is_broken_for_php_is_broken_for_us(value: object) -> None:
    """PHP is the more patient one: it takes what we refuse, and never the other way round."""
    data = codec.dump(value)
    rng = random.Random(data)
    damaged = []
    for _ in range(200):
        copy = bytearray(data)
        copy[rng.randrange(len(copy))] = rng.choice(b'0123456789:;"{}aisbdN\xff')
        damaged.append(bytes(copy))
    function = "fn($s) => @unserialize($s, ['allowed_classes' => false]) === false ? '0' : '1'"
    for blob, taken in zip(damaged, php.mapped(function, damaged), strict=True):
        try:
            read = codec.load(blob)
        except Undecodable:
            continue
        assert taken == b"1" or read is False
