"""Which points lie in the areas drawn on the map. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def inside_polygon(x: np.ndarray, y: np.ndarray, corners: Sequence[Sequence[float]]) -> np.ndarray:
    """Which points [n] lie inside the closed polygon: even-odd rule (Shimrat 1962), one pass an edge."""
    outline = np.asarray(corners, dtype=float).reshape(-1, 2)
    inside = np.zeros(len(x), dtype=bool)
    if len(outline) < 3:
        return inside
    low, high = outline.min(axis=0), outline.max(axis=0)
    near = np.flatnonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
    px, py, odd = x[near], y[near], np.zeros(len(near), dtype=bool)
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if y0 != y1:
            crossed = (y0 > py) != (y1 > py)
            odd ^= crossed & (px < (x1 - x0) * (py - y0) / (y1 - y0) + x0)
    inside[near] = odd
    return inside


def inside_areas(x: np.ndarray, y: np.ndarray, areas: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Which points [n] lie in at least one brush area (`rect`: [[x0, x1], [y0, y1]]; `polygon`: [[x, y], …]). NaN lies in none."""
    inside = np.zeros(len(x), dtype=bool)
    for area in areas:
        bounds = area["coord_range"]
        if area["brush_type"] == "rect":
            (x0, x1), (y0, y1) = sorted(bounds[0]), sorted(bounds[1])
            inside |= (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        elif area["brush_type"] == "polygon":
            inside |= inside_polygon(x, y, bounds)
    return inside


def area_record(areas: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The areas as plain values, coordinates to four decimals, for the record of a decision."""
    return [{"brush_type": area["brush_type"], "coord_range": np.round(area["coord_range"], 4).tolist()} for area in areas]
