"""What the bench of reloads concludes from its rows, and how it shows them."""

from __future__ import annotations

from typing import Any

from bench.reload import judged, table
from bench.rounds import Result


def row(name: str, ms: float, **fields: Any) -> Result:
    kind = fields.pop("kind", "peer")
    return Result(name, "pandas", kind, saves=[ms / 1e3], old_code=[ms / 1e3], **fields)


def rows(procd: float, told: float, bare: float = 10) -> list[Result]:
    return [
        row("procd", procd, kind="procd"),
        row("procd HUP", told, kind="procd", is_hup=True),
        row("bare", bare, kind="bare"),
        row("slow", 900),
        row("fast", 400),
        row("told", 300, is_hup=True),
        Result("nobody", "pandas", error="not installed"),
    ]


def broken(results: list[Result]) -> list[str]:
    return [verdict.promise for verdict in judged("pandas", results) if not verdict.is_kept]


def test_all_is_kept_when_procd_is_fast() -> None:
    assert broken(rows(procd=19, told=18)) == []


def test_who_watches_is_compared_with_the_fastest_that_watches() -> None:
    assert broken(rows(procd=41, told=15, bare=30)) == [
        "app with numpy and pandas, procd, its like: 10 x as fast"
    ]


def test_in_the_end_procd_is_compared_with_the_fastest_of_all() -> None:
    assert broken(rows(procd=39, told=31, bare=30)) == [
        "app with numpy and pandas, procd HUP, its like: 10 x as fast",
        "app with numpy and pandas, watching or told: 10 x as fast",
    ]


def test_more_than_twice_the_bare_limit_is_too_slow() -> None:
    assert broken(rows(procd=21, told=20)) == ["app with numpy and pandas, procd: at most 2 x bare"]


def test_a_failed_request_and_a_missed_save_break_a_promise() -> None:
    results = rows(procd=19, told=18)
    results[0].missed, results[1].failed = 1, 1

    assert broken(results) == [
        "app with numpy and pandas, procd: each save is served",
        "app with numpy and pandas, procd HUP: no request fails",
    ]


def test_a_procd_that_did_not_start_is_no_success() -> None:
    results = rows(procd=19, told=18)
    results[0] = Result("procd", "pandas", "procd", error="the port is taken")

    assert broken(results) == ["app with numpy and pandas, procd: each save is served"]


def test_the_table_has_the_fastest_first_and_each_row_the_same_cells() -> None:
    lines = table("app", rows(procd=19, told=18)).splitlines()

    names = [line.split("|")[1].strip() for line in lines]
    order = ["bare", "procd HUP", "procd", "told", "fast", "slow", "nobody"]
    assert [name for name in names if name[0] != "-"] == ["app", *order]
    assert len({line.count("|") for line in lines}) == 1
    assert len({len(line) for line in lines}) == 1
    assert "not installed" in lines[-1]
