"""All recipes by name, and the one function that builds any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from biasdiff_core.corpus.card import Built
from biasdiff_core.corpus.catalogue import Source, data_folder
from biasdiff_core.corpus.indicators import INDICATORS, Indicator, indicate
from biasdiff_core.corpus.mixes import ALIASES, CUSTOM, MIXES, Mix, Ratio, mix, ratio_words
from biasdiff_core.errors import ConfigError

RECIPES: Mapping[str, Mix | Indicator] = {**MIXES, **INDICATORS}
NAMES = (*RECIPES, *ALIASES)


def described() -> list[dict[str, Any]]:
    """A row a recipe: its name, what it makes, of which files of the data folder, in which ratio, and their licences."""
    rows = []
    for name, recipe in RECIPES.items():
        sources: tuple[Source | Indicator, ...] = (recipe,) if isinstance(recipe, Indicator) else (*recipe.biased, *recipe.neutral)
        rows.append(
            {
                "recipe": " or ".join([name, *(alias for alias, meant in ALIASES.items() if meant == name)]),
                "makes": "probing set" if isinstance(recipe, Indicator) else "corpus",
                "about": recipe.about,
                "ratio": "" if isinstance(recipe, Indicator) else ratio_words(recipe.ratio),
                "files": ", ".join(dict.fromkeys(source.path for source in sources)),
                "licences": "; ".join(dict.fromkeys(source.licence for source in sources)),
            }
        )
    return rows


def build(
    name: str,
    *,
    seed: int = 0,
    ratio: Ratio | None = None,
    biased: Source | None = None,
    neutral: Source | None = None,
    hold_out: int = 0,
    data: Path | None = None,
) -> Built:
    """The corpus or probing set of the recipe `name` with its card.

    `ratio`: in place of the recipe's, of mixes alone, as `hold_out` (`mix`). `biased`, `neutral`: of the recipe custom alone. `data`: the
    folder of the published data, `$BIASDIFF_DATA` when it is not given. Raises ConfigError for an unknown recipe or a choice that it does
    not have, DataError when a source is missing or unfit.
    """
    name = ALIASES.get(name, name)
    recipe = RECIPES.get(name)
    if recipe is None:
        raise ConfigError(f"There is no recipe {name!r}.", f"Choose one of {', '.join(NAMES)}.")
    data = data or data_folder()
    if (biased or neutral) and name != CUSTOM:
        raise ConfigError(f"The recipe {name} has its own sources.", f"Use the recipe {CUSTOM} for others.")
    if isinstance(recipe, Indicator):
        if ratio or hold_out:
            raise ConfigError(f"{name} is a probing set, which has no ratio and holds nothing out.", "Leave both out.")
        return indicate(name, recipe, seed=seed, data=data)
    if name == CUSTOM:
        recipe = replace(recipe, biased=(biased,) if biased else (), neutral=(neutral,) if neutral else ())
    return mix(name, replace(recipe, ratio=ratio or recipe.ratio), seed=seed, data=data, hold_out=hold_out)
