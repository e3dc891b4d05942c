"""Which candidates become probe pairs. Form is checked here, not meaning: whether a sentence is a stereotype, people must say."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from biasdiff_core.config.generation import PairRules
from biasdiff_core.corpus.generation.overlap import OverlapIndex
from biasdiff_core.corpus.generation.parse import Candidate
from biasdiff_core.corpus.probe_texts import GROUP_WORDS, span_fault, word_spans, words_of
from biasdiff_core.corpus.refusals import flaw_of
from biasdiff_core.corpus.summary import normalised

LEAST_LETTERS = 0.75  # of the characters that are not white space
EARLIER = "an earlier pair"
# Frequent function words of English, less those that are as frequent in French, German or Spanish ("a", "an", "in", "was", "on", "no").
ENGLISH = frozenset(
    words_of(
        "the of and to is that it for with at by be from or but as all any some such every only have has had were been are this these they "
        "them their he his him she who when where what which not never always very too like without than if since because how our we you "
        "your i would can could should does did about after before into over there ever"
    )
)
ENGLISH_FROM = 4  # words; a shorter sentence may have no function word

_REQUESTED = "write|create|generate|provide|replace|change"
# (what a cell holds that is no part of a sentence, the reason). Kept narrow: openings such as "Of course, …" are speech as well.
_LEAKS = (
    (re.compile(r"\A\(?\d+\s*[.):]\s"), "numbering"),
    (re.compile(r"[<>{}\[\]|\\`*_#~^=]|://"), "markup"),
    (re.compile(r"\Ahere(?:['’]s| is| are)\b", re.IGNORECASE), "talk of the model"),
    (re.compile(r"\A(?:sure|certainly|of course|okay)\W+(?:here|i)\b|\A(?:hmm+|wait)\s*[,.]", re.IGNORECASE), "talk of the model"),
    (
        re.compile(rf"\A(?:let me|let['’]s|i(?:['’]ll| will| need to| should| must)) (?:think|see|{_REQUESTED})\b", re.IGNORECASE),
        "talk of the model",
    ),
    (
        re.compile(
            rf"\bi(?:['’]m not able to| am not able to| can['’]?t| cannot| won['’]?t) (?:help|assist|comply|{_REQUESTED})\b", re.IGNORECASE
        ),
        "refusal",
    ),
    (re.compile(r"\bas an ai\b|\ba language model\b", re.IGNORECASE), "refusal"),
    (re.compile(r"\A[a-z-]+\s*\d*\s*:", re.IGNORECASE), "a label in front"),
    (re.compile(r"\bnote:|[.!?][\"'”’]?\s*\([^()]*\)\Z", re.IGNORECASE), "a note behind"),
    (re.compile(r"\bstereotyp", re.IGNORECASE), "talk about the stereotype"),
    (re.compile(r"\A(?![\"'“‘(]?\w)"), "a start that is no word"),  # also what a spreadsheet takes for a formula
)


@dataclass(frozen=True, kw_only=True)
class ProbePair:
    """An accepted pair. `group`: the words of the probe that its twin replaces, in small letters."""

    text: str
    twin: str
    bias_type: str
    group: str


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A candidate that is no probe pair: the reason in fixed words, to be counted, and what in it gave the reason."""

    reason: str
    detail: str
    raw: str


class Judge:
    """Judges one candidate after the other; what it accepted is held against those that follow.

    `references`: by their name, texts that no probe or twin may nearly equal (the corpus, evaluation sets, the prompt's examples).
    `english`: whether a sentence of another language is refused.
    """

    def __init__(self, rules: PairRules, references: Mapping[str, Iterable[str]], *, english: bool = True) -> None:
        self._rules = rules
        self._english = english
        self._known = OverlapIndex(rules.max_overlap)
        for place, texts in references.items():
            for text in texts:
                self._known.add(text, place)

    def judge(self, candidate: Candidate) -> ProbePair | Rejection:
        """The pair with its white space tidied, or why it is none."""
        cells = candidate.cells
        found = ("not a row", "") if cells is None else self._pair(cells)
        if isinstance(found, ProbePair):
            for text in (found.text, found.twin):
                self._known.add(text, EARLIER)
            return found
        reason, detail = found
        return Rejection(reason=reason, detail=detail, raw=candidate.raw)

    def _pair(self, cells: Mapping[str, object]) -> ProbePair | tuple[str, str]:
        text, twin, bias_type = (cells.get(name) for name in ("text", "twin", "bias_type"))
        if not isinstance(text, str) or not isinstance(twin, str) or not isinstance(bias_type, str):
            return "a cell that is missing or not text", ""
        text, twin, bias_type = text.strip(), twin.strip(), bias_type.strip().casefold()
        for sentence in (text, twin):
            if reason := sentence_fault(sentence, self._rules):
                return reason
            if self._english and not is_english(sentence):
                return "not in English", "no English function word"
        text, twin = " ".join(text.split()), " ".join(twin.split())
        if bias_type not in self._rules.bias_types:
            return "a bias type that was not asked for", repr(bias_type[:40])
        direction = cells.get("direction", "stereo")
        if not isinstance(direction, str) or direction.strip().casefold() != "stereo":
            return "not marked as a stereotype", repr(direction)[:40]
        spans = differing_span(text, twin)
        if spans is None:
            return f"not one differing span of at most {GROUP_WORDS} words", ""
        for sentence in (text, twin):
            if near := self._known.find(sentence):
                return f"near-duplicate of {near.place}", f"{near.share:.2f} of all words shared: {near.text}"
        return ProbePair(text=text, twin=twin, bias_type=bias_type, group=normalised(spans[0]))


def sentence_fault(sentence: str, rules: PairRules) -> tuple[str, str] | None:
    """(reason, detail) why `sentence` cannot be a probe or twin: characters, leaked talk, script or length; None when it can.

    The script is that of every letter, which must be Latin; letters must be at least `LEAST_LETTERS` of the characters.
    """
    flaw = flaw_of(sentence)
    control = [char for char in sentence if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Co", "Cn")]
    if flaw or control:
        return "characters that no sentence has", flaw[0].what if flaw else f"U+{ord(control[0]):04X}"
    for pattern, reason in _LEAKS:
        if found := pattern.search(sentence):
            return f"{reason} in a cell", found[0]
    letters = [char for char in sentence if char.isalpha()]
    foreign = [char for char in letters if not unicodedata.name(char, "").startswith("LATIN ")]
    if foreign or len(letters) < LEAST_LETTERS * len("".join(sentence.split())):
        return "not in Latin letters", f"{foreign[0]!r}" if foreign else f"{len(letters)} letters"
    words = len(sentence.split())
    if not rules.min_words <= words <= rules.max_words:
        return f"not {rules.min_words} to {rules.max_words} words", f"{words} words"
    return None


def is_english(sentence: str) -> bool:
    """Whether `sentence` has a word of `ENGLISH`, or too few words to tell. Languages that share many of these, as Dutch does, may pass."""
    words = words_of(sentence)
    return len(words) < ENGLISH_FROM or not ENGLISH.isdisjoint(words)


def differing_span(text: str, twin: str) -> tuple[str, str] | None:
    """The one run of words in which the two differ, in either, as short as the name of a group and without a negation; None else.

    Words are compared with their case and punctuation: what surrounds the group must be the same, letter for letter.
    """
    spans = word_spans(tuple(text.split()), tuple(twin.split()))
    words, others = words_of(text), words_of(twin)
    if len(spans) != 1 or not all(spans[0]) or words == others or span_fault(word_spans(words, others), words):
        return None
    before, after = spans[0]
    return " ".join(before), " ".join(after)
