"""One point against one polygon at a time: a ray to the right crosses the outline an odd number of times."""

from __future__ import annotations

from collections.abc import Sequence


def inside_polygon_slow(x: float, y: float, corners: Sequence[Sequence[float]]) -> bool:
    inside = False
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
            inside = not inside
    return inside
