"""The bench's picture is an SVG that any viewer opens, with the shortest bar first."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from bench.picture import Bar, Group, Scale, drawn

SVG = "{http://www.w3.org/2000/svg}"
BARS = [Bar("slow <1>", 1200.0, "peer"), Bar("procd", 24.0, "procd"), Bar("bare", 3.5, "bare")]


def picture(*groups: Group) -> ET.Element:
    text = drawn("a & b", "caption", list(groups))
    return ET.fromstring(text)  # noqa: S314 - our own text


def bars_of(root: ET.Element) -> list[tuple[str | None, float]]:
    """Class and width of each bar, from top to bottom."""
    found = [r for r in root.iter(f"{SVG}rect") if r.get("class") in {"procd", "bare", "peer"}]
    found.sort(key=lambda rect: float(rect.get("y", "")))
    return [(rect.get("class"), float(rect.get("width", ""))) for rect in found]


def test_bars_stand_in_order_whatever_order_they_come_in() -> None:
    bars = bars_of(picture(Group("one", BARS)))

    assert [kind for kind, _ in bars] == ["bare", "procd", "peer"]
    widths = [width for _, width in bars]
    assert widths == sorted(widths)


def test_each_bar_is_named_and_numbered_and_nothing_breaks_the_xml() -> None:
    texts = {element.text for element in picture(Group("one", BARS)).iter(f"{SVG}text")}

    assert {"a & b", "caption", "slow <1>", "1,200", "procd", "24", "bare", "3.5"} <= texts


def test_groups_share_one_scale() -> None:
    alone = bars_of(picture(Group("one", BARS), Group("two", [Bar("procd", 24.0, "procd")])))

    assert alone[1] == alone[3]


def test_everything_stands_inside_of_the_card() -> None:
    root = picture(Group("one", BARS), Group("two", BARS))

    height, width = float(root.get("height", "")), float(root.get("width", ""))
    for element in (*root.iter(f"{SVG}rect"), *root.iter(f"{SVG}text")):
        x, y = float(element.get("x", "")), float(element.get("y", ""))
        right = x + float(element.get("width", 0))
        assert 0 <= x <= right <= width
        assert 0 <= y + float(element.get("height", 0)) <= height


def test_a_decade_has_the_same_length_everywhere() -> None:
    scale = Scale.of([3.5, 1200.0])

    assert (scale.low, scale.high) == (0, 4)
    assert round(scale.x(100) - scale.x(10), 6) == round(scale.x(1000) - scale.x(100), 6)


def test_a_run_in_which_nothing_was_served_still_has_a_picture() -> None:
    assert bars_of(picture(Group("one", []))) == []
