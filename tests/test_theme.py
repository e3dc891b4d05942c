"""The theme's colours: text and controls can be read by WCAG AA in both palettes, and the fonts come from this machine."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from biasdiff_ui.style import BUTTON

THEME = tomllib.loads((Path(__file__).resolve().parents[1] / ".streamlit" / "config.toml").read_text(encoding="utf8"))["theme"]
TEXT, CONTROL = 4.5, 3.0  # WCAG 2.2, 1.4.3 and 1.4.11


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_ratio_by_hand() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21.0)  # (1 + 0.05) / (0 + 0.05)
    # Grey 118: ((118/255 + 0.055) / 1.055)^2.4 = 0.1812; 1.05 / 0.2312 = 4.54
    assert contrast("#767676", "#FFFFFF") == pytest.approx(4.54, abs=0.005)


@pytest.mark.parametrize("palette", ["light", "dark"])
def test_text_links_and_buttons_can_be_read(palette: str) -> None:
    colours = THEME[palette]
    for background in ("backgroundColor", "secondaryBackgroundColor"):
        for text in ("textColor", "linkColor"):
            assert contrast(colours[text], colours[background]) >= TEXT, (text, background)
        for control in (colours["primaryColor"], BUTTON):
            assert contrast(control, colours[background]) >= CONTROL, (control, background)
    assert contrast("#FFFFFF", BUTTON) >= TEXT


def test_no_font_is_fetched_from_elsewhere() -> None:
    assert "fontFaces" not in THEME
    assert (THEME["font"], THEME["codeFont"]) == ("sans-serif", "monospace")  # those that Streamlit serves itself
