"""Recipes for the paper's corpora (section 3.1, appendix C): biased and neutral sources, mixed in a ratio and shuffled by a seed."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from biasdiff_core.corpus import catalogue
from biasdiff_core.corpus.card import Built, Taken, built
from biasdiff_core.corpus.catalogue import LabelledText, Source, SourceRows, read_source
from biasdiff_core.corpus.summary import normalised
from biasdiff_core.errors import ConfigError, DataError

CUSTOM = "custom"


class Ratio(NamedTuple):
    """Biased to neutral rows, in whole numbers above zero."""

    biased: int
    neutral: int


@dataclass(frozen=True, kw_only=True)
class Mix:
    """A labelled corpus: the rows of `biased` sources get the label 1, those of `neutral` sources 0.

    `ratio`: None takes all rows. `keep_repeated`: rows that repeat a text stay, as in a corpus that was published so.
    """

    about: str
    biased: tuple[Source, ...] = ()
    neutral: tuple[Source, ...] = ()
    ratio: Ratio | None = Ratio(3, 7)
    keep_repeated: bool = False
    notes: tuple[str, ...] = ()


MIXES: Mapping[str, Mix] = {
    "trex_mix": Mix(
        about="generated biased sentences with T-REx, the paper's main corpus",
        biased=(catalogue.GENERATED,),
        neutral=(catalogue.T_REX,),
        ratio=None,
        keep_repeated=True,
        notes=("Published with 2,614 biased and 6,325 neutral rows, which the paper calls 3:7; one biased sentence stands in it twice.",),
    ),
    "gen_mix": Mix(
        about="generated biased sentences with AG News",
        biased=(catalogue.GENERATED,),
        neutral=(catalogue.AG_NEWS,),
        notes=("The biased rows are those of Trex_mix: which of the generated sentences the paper took is not published.",),
    ),
    "toxic_mix": Mix(
        about="RealToxicityPrompts with AG News",
        biased=(catalogue.REAL_TOXICITY_PROMPTS,),
        neutral=(catalogue.AG_NEWS,),
        notes=("Every row of RealToxicityPrompts counts as biased, as in the paper, though toxic text need not hold a stereotype.",),
    ),
    "balance": Mix(
        about="Golden BUG, GAP and hate speech, mostly stereotypes",
        biased=(catalogue.BUG_STEREOTYPES, catalogue.HATE_SPEECH),
        neutral=(catalogue.BUG_OTHERS, catalogue.GAP, catalogue.INOFFENSIVE),
        ratio=Ratio(3, 2),
        notes=(
            "The paper says only that sentences with stereotypes are the majority; 3:2 is this project's choice.",
            "Biased: BUG's stereotypes and hate speech. Neutral: BUG's other sentences, GAP, and tweets that are neither hate nor offence; "
            "offensive tweets without hate are in neither part.",
        ),
    ),
    CUSTOM: Mix(about="any biased source with any neutral source"),
}
# Table 7 calls the corpus Mix, section 3.3 and Table 5 Toxic_mix; the paper describes one way to make it.
ALIASES: Mapping[str, str] = {"mix": "toxic_mix"}


def parse_ratio(text: str) -> Ratio:
    """`3:7` as a ratio. Raises ConfigError for anything else."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*:\s*(\d{1,6})\s*", text)
    if found is None or not int(found[1]) or not int(found[2]):
        raise ConfigError(f"The ratio {text!r} is not one of two whole numbers above 0.", "Write biased:neutral, such as 3:7.")
    return Ratio(int(found[1]), int(found[2]))


def ratio_words(ratio: Ratio | None) -> str:
    """`3:7`, or `all rows`."""
    return "all rows" if ratio is None else f"{ratio.biased}:{ratio.neutral}"


def sizes(biased: int, neutral: int, ratio: Ratio) -> tuple[int, int]:
    """The most rows of each part in the ratio: one part is taken whole, the other's share is rounded half up."""
    if biased * ratio.neutral <= neutral * ratio.biased:
        return biased, (2 * biased * ratio.neutral + ratio.biased) // (2 * ratio.biased)
    return (2 * neutral * ratio.biased + ratio.neutral) // (2 * ratio.neutral), neutral


def mix(name: str, recipe: Mix, *, seed: int, data: Path | None, hold_out: int = 0) -> Built:
    """The corpus of a recipe: columns text, label, source, group; the same content for the same seed and sources on any machine.

    Texts that stand on both sides are left out of both, for their label is not known; further copies of a text (equal but for case,
    punctuation and white space) are left out unless the recipe keeps them. `hold_out`: so many different neutral texts are drawn before
    all else and kept out with their copies, for evaluations of what was not trained on. Raises ConfigError when a side has no source,
    DataError when one is missing, cannot be read, or leaves a side empty.
    """
    if not recipe.biased or not recipe.neutral:
        raise ConfigError(
            f"The recipe {name} needs a biased and a neutral source.",
            "Give both: a file, a folder saved by `datasets`, a Hugging Face dataset id, or `demo`.",
        )
    biased = [read_source(source, 1, data) for source in recipe.biased]
    neutral = [read_source(source, 0, data) for source in recipe.neutral]
    both = _forms(biased) & _forms(neutral)
    sides = [_Side.of(part, both, keep_repeated=recipe.keep_repeated) for part in (biased, neutral)]
    if not all(side.texts for side in sides):
        raise DataError(f"Nothing is left of a side of {name}: all its texts stand on the other side too.", "Name other sources.")
    held_out = sides[1].hold_out(hold_out, random.Random(f"{seed}:hold out"))
    available = (len(sides[0].texts), len(sides[1].texts))
    wanted = available if recipe.ratio is None else sizes(*available, recipe.ratio)
    if not all(wanted):
        raise DataError(
            f"At {ratio_words(recipe.ratio)}, {available[0]} biased and {available[1]} neutral rows make a side empty.",
            "Give larger sources or another ratio.",
        )
    generator = random.Random(seed)
    # Neutral rows first: so the published Trex_mix is ordered, and a shuffle depends on the order that it starts from.
    chosen = [text for side in (1, 0) for text in _sample(sides[side].texts, wanted[side], generator)]
    generator.shuffle(chosen)
    return built(
        recipe=name,
        about=recipe.about,
        seed=seed,
        ratio=ratio_words(recipe.ratio),
        columns=LabelledText._fields,
        rows=[(row.text, str(row.label), row.source, row.group) for row in chosen],
        taken=[taken for side in sides for taken in side.taken(chosen)],
        notes=(
            *recipe.notes,
            *(f"{source.name} is {source.part}." for source in (*recipe.biased, *recipe.neutral) if source.part),
            *_limited(available, wanted),
            *([f"{len(held_out):,} neutral texts are held out for evaluation, in a file beside this one."] if held_out else []),
        ),
        held_out=held_out,
    )


@dataclass(kw_only=True)
class _Side:
    """The texts of one side that may be taken; of each of its sources how many were left out, by reason."""

    sources: Sequence[SourceRows]
    texts: Sequence[LabelledText]
    repeated: Mapping[str, int]
    contradictory: Mapping[str, int]

    @classmethod
    def of(cls, sources: Sequence[SourceRows], both: Collection[str], *, keep_repeated: bool) -> _Side:
        seen: set[str] = set()
        kept: list[LabelledText] = []
        repeated, contradictory = Counter[str](), Counter[str]()
        for text in (text for rows in sources for text in rows.texts):
            form = normalised(text.text)
            if form in both:
                contradictory[text.source] += 1
            elif form in seen and not keep_repeated:
                repeated[text.source] += 1
            else:
                kept.append(text)
            seen.add(form)
        return cls(sources=sources, texts=kept, repeated=repeated, contradictory=contradictory)

    def hold_out(self, count: int, generator: random.Random) -> list[str]:
        """Take so many different texts, with all their copies, out of those that may be taken, in their order."""
        first = {normalised(text.text): text.text for text in reversed(self.texts)}
        forms = list(dict.fromkeys(normalised(text.text) for text in self.texts))
        if count >= len(forms):
            raise DataError(f"There are {len(forms):,} different neutral texts, so {count:,} cannot be held out.", "Hold fewer out.")
        drawn = [forms[place] for place in sorted(generator.sample(range(len(forms)), count))]
        gone = set(drawn)
        self.texts = [text for text in self.texts if normalised(text.text) not in gone]
        return [first[form] for form in drawn]

    def taken(self, chosen: Iterable[LabelledText]) -> list[Taken]:
        """What was taken of each source."""
        counts = Counter((text.source, text.label) for text in chosen)
        return [
            Taken(
                source=rows.source.name,
                path=rows.source.path,
                licence=rows.source.licence,
                label=rows.label,
                rows=len(rows.texts),
                without_text=rows.without_text,
                repeated=self.repeated[rows.source.name],
                contradictory=self.contradictory[rows.source.name],
                taken=counts[rows.source.name, rows.label],
            )
            for rows in self.sources
        ]


def _forms(sources: Iterable[SourceRows]) -> set[str]:
    return {normalised(text.text) for rows in sources for text in rows.texts}


def _sample(texts: Sequence[LabelledText], size: int, generator: random.Random) -> list[LabelledText]:
    """So many of the texts, in their order; all of them cost no draw."""
    if size == len(texts):
        return list(texts)
    return [texts[place] for place in sorted(generator.sample(range(len(texts)), size))]


def _limited(available: tuple[int, int], wanted: tuple[int, int]) -> list[str]:
    """Which side decided the size of the other."""
    names = ("biased", "neutral")
    return [
        f"{available[1 - side]:,} {names[1 - side]} rows decide that {wanted[side]:,} of {available[side]:,} {names[side]} ones are taken."
        for side in (0, 1)
        if wanted[side] < available[side]
    ]
