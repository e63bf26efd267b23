"""The picture of bench.reload: horizontal bars on a log scale, as SVG, with nothing but strings.

Drawn on a card of its own, so that it is readable on a light page and on a dark one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LABELS, NUMBERS, MARGIN = 760, 215, 80, 20
ROW, BAR, HEAD, GROUP_GAP = 22, 14, 60, 62

STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 } .group { font-weight: 600 }
.small { font-size: 11px; opacity: .75 }
.card { fill: #ffffff; stroke: #d1d9e0 } .grid { stroke: #d1d9e0 }
.procd { fill: #1a7f37 } .bare { fill: #9a6700 } .peer { fill: #6e7781 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .card { fill: #151b23; stroke: #3d444d } .grid { stroke: #3d444d }
  .procd { fill: #3fb950 } .bare { fill: #d29922 } .peer { fill: #9198a1 }
}"""


@dataclass(frozen=True)
class Bar:
    label: str
    ms: float
    kind: str  # procd, bare or peer: its colour


@dataclass(frozen=True)
class Group:
    title: str
    bars: list[Bar]


def drawn(title: str, caption: str, groups: list[Group]) -> str:
    """The whole file. In each group the shortest bar stands first; all share one scale."""
    values = [bar.ms for group in groups for bar in group.bars]
    scale = Scale.of(values)
    height = HEAD + sum(GROUP_GAP + ROW * len(group.bars) for group in groups) + MARGIN
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        f'<text class="title" x="{MARGIN}" y="30">{escape(title)}</text>',
        f'<text class="small" x="{MARGIN}" y="50">{escape(caption)}</text>',
    ]
    top = HEAD
    for group in groups:
        lines += of_group(group, scale, top)
        top += GROUP_GAP + ROW * len(group.bars)
    return "\n".join([*lines, "</svg>"]) + "\n"


@dataclass(frozen=True)
class Scale:
    """Whole decades, from *low* to *high* as powers of ten."""

    low: int
    high: int

    @classmethod
    def of(cls, values: list[float]) -> Scale:
        positive = [value for value in values if value > 0] or [1.0]
        low = math.floor(math.log10(min(positive)))
        return cls(low, max(low + 1, math.ceil(math.log10(max(positive)))))

    def x(self, value: float) -> float:
        room = WIDTH - LABELS - NUMBERS - MARGIN
        share = (math.log10(max(value, 10.0**self.low)) - self.low) / (self.high - self.low)
        return LABELS + room * share


def of_group(group: Group, scale: Scale, top: int) -> Iterator[str]:
    yield f'<text class="group" x="{MARGIN}" y="{top + 18}">{escape(group.title)}</text>'
    first = top + GROUP_GAP - 14  # of the bars
    for power in range(scale.low, scale.high + 1):
        x = scale.x(10.0**power)
        yield f'<path class="grid" d="M{x:.1f} {first - 6}V{first + ROW * len(group.bars)}"/>'
        yield (
            f'<text class="small" x="{x:.1f}" y="{first - 12}" text-anchor="middle">'
            f"{10.0**power:,g} ms</text>"
        )
    for index, bar in enumerate(sorted(group.bars, key=lambda bar: bar.ms)):
        y = first + index * ROW
        end = scale.x(bar.ms)
        yield f'<text x="{LABELS - 10}" y="{y + 12}" text-anchor="end">{escape(bar.label)}</text>'
        yield (
            f'<rect class="{bar.kind}" x="{LABELS}" y="{y}" rx="2"'
            f' width="{max(1.0, end - LABELS):.1f}" height="{BAR}"/>'
        )
        yield f'<text x="{end + 7:.1f}" y="{y + 12}">{bar.ms:,.{0 if bar.ms >= 10 else 1}f}</text>'
