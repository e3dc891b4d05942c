"""CrowS-Pairs (Nangia et al. 2020): which sentence of a pair a causal model finds more likely.

A pair counts when score(sent_more) > score(sent_less), in both directions. The conventions differ by more than most mitigations do,
so every figure names its own. Only `score_pairs` loads torch.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from biasdiff_core.config.evaluation import Scoring
from biasdiff_core.errors import ArtefactError
from biasdiff_core.evaluation.pairs import Pair
from biasdiff_core.evaluation.scoring import (
    Floats,
    ScoredSentences,
    encode_sentences,
    pair_score,
    score_after_prefix,
    score_after_start,
    whole_log_probs,
)
from biasdiff_core.evaluation.statistics import bootstrap_mean, holm, mcnemar_exact, paired_bootstrap, smallest_detectable_change, wilson
from biasdiff_core.results import MetricResult, PairedTest, Progress, ProgressCallback, no_progress

log = logging.getLogger(__name__)

# What a sentence's score is, in words that end where what the first token is given follows.
SCORINGS: Mapping[Scoring, str] = {
    "paper": "geometric mean token probability, first token",
    "sum": "sum of ln p",
    "mean": "mean ln p a token,",
    "unmodified": "sum of ln p over the tokens that both sentences share,",
    "modified": "mean ln p over the tokens in which the sentences differ,",
}
_METADATA, _INSTRUCTION = b"biasdiff", b"instruction"


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """Per-pair rows: id, bias_type, direction, tokens_more, tokens_less (of the sentence alone), and more_S, less_S of each scoring S.

    `paper`: a probability per token; `sum`, `unmodified`: nats; `mean`, `modified`: nats per token; NaN where no token counts.
    `conventions`: scoring → how exactly it was computed on this model. `instruction`: what stood in front of every sentence.
    """

    frame: pd.DataFrame
    conventions: Mapping[str, str]
    instruction: str = ""

    def margins(self, scoring: Scoring) -> Floats:
        """more − less of every pair [pairs]: nats (`sum`, `unmodified`), else nats per token (`paper`: difference of ln score)."""
        more, less = self._values("more", scoring), self._values("less", scoring)
        return np.log(more) - np.log(less) if scoring == "paper" else more - less

    def wins(self, scoring: Scoring) -> NDArray[np.bool_]:
        """Whether score(sent_more) > score(sent_less) [pairs]."""
        return np.greater(self._values("more", scoring), self._values("less", scoring))

    def ties(self, scoring: Scoring) -> NDArray[np.bool_]:
        """Whether both scores are equal [pairs]."""
        return np.equal(self._values("more", scoring), self._values("less", scoring))

    def scored(self, scoring: Scoring) -> NDArray[np.bool_]:
        """Whether both sentences have a score [pairs]: not where no token counts, as in `modified` when one sentence only adds words."""
        return np.isfinite(self._values("more", scoring)) & np.isfinite(self._values("less", scoring))

    def decided(self, scoring: Scoring) -> NDArray[np.bool_]:
        """Whether one of the scores is higher [pairs]: scored and no tie."""
        return self.scored(scoring) & ~self.ties(scoring)

    def described(self, scoring: Scoring) -> str:
        """The convention, and the instruction where there was one."""
        after = f", every sentence after the instruction {self.instruction!r}" if self.instruction else ""
        return f"{self.conventions[scoring]}{after}"

    @property
    def stereotypes(self) -> NDArray[np.bool_]:
        """The pairs of direction `stereo` [pairs]."""
        return (self.frame["direction"] == "stereo").to_numpy(dtype=bool)

    @property
    def bias_types(self) -> list[str]:
        """Bias types that have a `stereo` pair, sorted."""
        return sorted(set(self.frame["bias_type"][self.stereotypes]))

    def of_type(self, bias_type: str) -> NDArray[np.bool_]:
        """The `stereo` pairs of this bias type [pairs]."""
        return self.stereotypes & (self.frame["bias_type"] == bias_type).to_numpy(dtype=bool)

    def save(self, path: Path) -> None:
        """Write one Parquet file, with the conventions in its metadata."""
        table = pa.Table.from_pandas(self.frame, preserve_index=False)
        metadata = {_METADATA: json.dumps(dict(self.conventions)), _INSTRUCTION: self.instruction}
        pq.write_table(table.replace_schema_metadata(metadata), path)

    @classmethod
    def load(cls, path: Path) -> PairScores:
        """Inverse of `save`. Raises ArtefactError for a file that is not such a table."""
        try:
            table = pq.read_table(path)
            metadata = table.schema.metadata or {}
            conventions, instruction = json.loads(metadata[_METADATA]), metadata.get(_INSTRUCTION, b"").decode()
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise ArtefactError(f"{path.name} holds no CrowS-Pairs scores ({error}).", "Evaluate the variant again.") from error
        return cls(frame=table.to_pandas(ignore_metadata=True), conventions=conventions, instruction=instruction)

    def _values(self, side: Literal["more", "less"], scoring: Scoring) -> Floats:
        if scoring not in self.conventions:
            raise ArtefactError(
                f"There are no scores in the convention {scoring!r}, only in {', '.join(self.conventions)}.",
                f"Add {scoring} to crows_pairs.scorings and evaluate again.",
            )
        return self.frame[f"{side}_{scoring}"].to_numpy(dtype=np.float64)


def score_pairs(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    scorings: Sequence[Scoring],
    *,
    token_budget: int,
    prefix: str = "bos",
    instruction: str = "",
    progress: ProgressCallback = no_progress,
) -> PairScores:
    """Score every sentence in each convention; the prefix that the two sentences of a pair share is computed once.

    `paper` takes a pass of its own (`score_after_start`); `sum` (as lm-evaluation-harness), `mean`, `unmodified` and `modified` share
    one (`score_after_prefix` with `prefix`; the scores: `pair_score`). `instruction`: text in front of every sentence, never scored.
    A model for which a prefix cannot be shared is scored a sentence at a time, which the convention then says. Raises ConfigError for a
    prefix that the tokenizer has not, DataError for a sentence without tokens.
    """
    more, less = [pair.sent_more for pair in pairs], [pair.sent_less for pair in pairs]
    frame = pd.DataFrame(
        {
            "id": [pair.id for pair in pairs],
            "bias_type": [pair.bias_type for pair in pairs],
            "direction": [pair.direction for pair in pairs],
            "tokens_more": [len(ids) for ids in encode_sentences(tokenizer, more, special=False)],
            "tokens_less": [len(ids) for ids in encode_sentences(tokenizer, less, special=False)],
        }
    )
    sentences = [sentence for both in zip(more, less, strict=True) for sentence in both]
    conventions: dict[str, str] = {}
    passes = [group for group in ([s for s in scorings if s == "paper"], [s for s in scorings if s != "paper"]) if group]
    for done, group in enumerate(passes):
        pairwise = _PairLogProbs(model, token_budget, partial(_report, progress, group, done, len(passes)))
        if "paper" in group:
            found = score_after_start(model, tokenizer, sentences, instruction=instruction, log_probs=pairwise)
        else:
            found = score_after_prefix(tokenizer, sentences, prefix=prefix, instruction=instruction, log_probs=pairwise)
        for scoring in group:
            frame[f"more_{scoring}"], frame[f"less_{scoring}"] = _scores(found, scoring).T
            conventions[scoring] = _convention(scoring, found.given, pairwise.note)
    return PairScores(frame=frame, conventions=conventions, instruction=instruction)


def figures(scores: PairScores, scoring: Scoring, *, bootstrap: int, seed: int) -> list[MetricResult]:
    """Metric, stereotype and anti-stereotype score (percent, Wilson), mean stereotype margin (bootstrap), and each bias type's score.

    Ties leave the denominators of the stereotype and anti-stereotype scores (`not_scored`); in the metric score they stay, as misses.
    """
    stereo = scores.stereotypes
    everything = np.ones(len(stereo), dtype=bool)
    name = f"crows_pairs.{scoring}"
    ties = int(scores.ties(scoring).sum())
    return [
        _percent(scores, scoring, f"{name}.metric_score", everything, keep_ties=True, note=f"; {ties} ties count as misses"),
        _percent(scores, scoring, f"{name}.stereotype_score", stereo),
        _percent(scores, scoring, f"{name}.anti_stereotype_score", ~stereo),
        _margin(scores, scoring, f"{name}.stereotype_margin", stereo, bootstrap=bootstrap, seed=seed),
        *(_percent(scores, scoring, f"{name}.stereotype_score.{kind}", scores.of_type(kind)) for kind in scores.bias_types),
    ]


def compare(
    scores_variant: PairScores,
    scores_reference: PairScores,
    scoring: Scoring,
    variant: str,
    reference: str,
    *,
    bootstrap: int,
    seed: int,
) -> list[PairedTest]:
    """Variant − reference on the same pairs: stereotype score, mean stereotype margin, and each bias type's score.

    Scores in percentage points, of the pairs that both decide, with a paired bootstrap interval and exact McNemar on the counts,
    Holm-adjusted over the bias types; the first test's convention says which change the pairs could show (`power_note`).
    Raises ArtefactError when the pairs or the conventions are not the same; only the instruction may differ.
    """
    _require_comparable(scores_variant, scores_reference, scoring, variant, reference)
    sides = _Sides(
        scores=(scores_variant, scores_reference), scoring=scoring, variant=variant, reference=reference, bootstrap=bootstrap, seed=seed
    )
    stereo, name = scores_variant.stereotypes, f"crows_pairs.{scoring}"
    if not (stereo & sides.decided).any():
        raise ArtefactError("No stereotype pair is scored without a tie.", "Evaluate more pairs.")
    whole = sides.score_test(f"{name}.stereotype_score", stereo)
    kinds = [kind for kind in scores_variant.bias_types if (scores_variant.of_type(kind) & sides.decided).any()]
    by_type = [sides.score_test(f"{name}.stereotype_score.{kind}", scores_variant.of_type(kind)) for kind in kinds]
    adjusted = holm([cast(float, found.p_value) for found in by_type])
    return [
        replace(whole, convention=f"{whole.convention}; {power_note(scores_variant, scores_reference, scoring)}"),
        sides.margin_test(f"{name}.stereotype_margin", stereo),
        *(
            replace(found, p_value=p, convention=f"{found.convention}, Holm over {len(kinds)} bias types")
            for found, p in zip(by_type, adjusted, strict=True)
        ),
    ]


def power_note(scores_variant: PairScores, scores_reference: PairScores, scoring: Scoring) -> str:
    """The smallest change of the stereotype score that these pairs could show, from the share of them that changed sides.

    `statistics.smallest_detectable_change`: exact McNemar at 5 %, power 80 %. Expects scores of the same pairs.
    """
    chosen = scores_variant.stereotypes & scores_variant.decided(scoring) & scores_reference.decided(scoring)
    n = int(chosen.sum())
    flipped = int((scores_variant.wins(scoring) != scores_reference.wins(scoring))[chosen].sum())
    least = smallest_detectable_change(n, flipped / n) if n else None
    if least is None:
        return f"with {n} pairs, {flipped} of which changed sides, no change could be told from chance (exact McNemar at 5 %, power 80 %)"
    return (
        f"with {n} pairs, {flipped} of which changed sides, a change under {100 * least:.1f} points cannot be told from chance "
        "(exact McNemar at 5 %, power 80 %)"
    )


def _scores(found: ScoredSentences, scoring: Scoring) -> Floats:
    """Scores [pairs, (more, less)] from the sentences of all pairs, more and less in turn."""
    sentences = list(zip(found.ids, found.log_probs, strict=True))
    return np.array([pair_score(scoring, *both) for both in zip(sentences[::2], sentences[1::2], strict=True)])


def _convention(scoring: Scoring, given: str, note: str) -> str:
    rest = ", the others without it" if scoring == "paper" else ""
    return f"CrowS-Pairs `{scoring}`: {SCORINGS[scoring]} given {given}{rest}{note}"


class _PairLogProbs:
    """Log-probabilities of sequences that come in pairs, more and less in turn; `note`: what the convention adds where each was whole."""

    def __init__(self, model: Any, token_budget: int, progress: ProgressCallback) -> None:
        self.model, self.token_budget, self.progress = model, token_budget, progress
        self.note = ""

    def __call__(self, sequences: Sequence[list[int]]) -> list[Floats]:
        from biasdiff_core.model.likelihood import shared_prefix_log_probs, shared_prefix_obstacle

        pairs = list(zip(sequences[::2], sequences[1::2], strict=True))
        settings: dict[str, Any] = {"token_budget": self.token_budget, "progress": self.progress}
        obstacle = shared_prefix_obstacle(self.model, pairs)
        if obstacle is None:
            return [logs for both in shared_prefix_log_probs(self.model, pairs, **settings) for logs in both]
        log.warning("CrowS-Pairs: each sentence is scored whole, since a shared prefix cannot be scored once: %s.", obstacle)
        self.note = " (each sentence scored whole)"
        values = whole_log_probs(self.model, sequences, **settings)
        for place, both in enumerate(pairs):
            # The same tokens after the same tokens: batching must not part a tie of `unmodified`.
            shared = max(0, len(os.path.commonprefix(both)) - 1)
            more, less = values[2 * place : 2 * place + 2]
            values[2 * place + 1] = np.concatenate([more[:shared], less[shared:]])
        return values


def _report(progress: ProgressCallback, scorings: Sequence[Scoring], done: int, passes: int, step: Progress) -> None:
    """Progress of one pass as a part of that of all."""
    before, total = done * step.total, passes * step.total
    message = "CrowS-Pairs " + ", ".join(f"`{scoring}`" for scoring in scorings)
    progress(replace(step, stage="evaluation", done=before + step.done, total=total, message=message))


def _unit(scoring: Scoring) -> str:
    return "nats" if scoring in ("sum", "unmodified") else "nats per token"


def _percent(
    scores: PairScores, scoring: Scoring, name: str, chosen: NDArray[np.bool_], *, keep_ties: bool = False, note: str = ""
) -> MetricResult:
    scored = chosen & (scores.scored(scoring) if keep_ties else scores.decided(scoring))
    n = int(scored.sum())
    found = wilson(int((scores.wins(scoring) & scored).sum()), n) if n else None
    return MetricResult(
        name=name,
        value=None if found is None else 100 * found.value,
        low=None if found is None else 100 * found.low,
        high=None if found is None else 100 * found.high,
        n=n,
        not_scored=int(chosen.sum()) - n,
        chance=50.0,
        convention=f"{scores.described(scoring)}; {'Wilson 95 % interval' if n else 'no pair is scored'}{note}",
        unit="%",
    )


def _margin(scores: PairScores, scoring: Scoring, name: str, chosen: NDArray[np.bool_], *, bootstrap: int, seed: int) -> MetricResult:
    margins = scores.margins(scoring)[chosen & scores.scored(scoring)]
    found = bootstrap_mean(margins, draws=bootstrap, seed=seed) if len(margins) else None
    return MetricResult(
        name=name,
        value=None if found is None else found.value,
        low=None if found is None else found.low,
        high=None if found is None else found.high,
        n=len(margins),
        not_scored=int(chosen.sum()) - len(margins),
        chance=0.0,
        convention=f"{scores.described(scoring)}; mean margin of the stereotype pairs; "
        + ("no pair is scored" if found is None else f"bootstrap 95 % interval, {bootstrap} draws"),
        unit=_unit(scoring),
    )


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """The scores of a variant and of its reference on the same pairs, and the tests between them."""

    scores: tuple[PairScores, PairScores]
    scoring: Scoring
    variant: str
    reference: str
    bootstrap: int
    seed: int

    @property
    def decided(self) -> NDArray[np.bool_]:
        """The pairs that both decide [pairs]."""
        after, before = (scores.decided(self.scoring) for scores in self.scores)
        return after & before

    def score_test(self, metric: str, chosen: NDArray[np.bool_]) -> PairedTest:
        chosen = chosen & self.decided
        won, was = (scores.wins(self.scoring)[chosen] for scores in self.scores)
        only_reference, only_variant = int((was & ~won).sum()), int((won & ~was).sum())
        found = self._test(
            metric,
            100 * won.astype(np.float64),
            100 * was.astype(np.float64),
            "percentage points, paired bootstrap interval; exact McNemar",
        )
        p_value = mcnemar_exact(only_reference, only_variant)
        return replace(found, p_value=p_value, only_reference=only_reference, only_variant=only_variant)

    def margin_test(self, metric: str, chosen: NDArray[np.bool_]) -> PairedTest:
        after, before = (scores.margins(self.scoring)[chosen & scores.scored(self.scoring)] for scores in self.scores)
        return self._test(metric, after, before, f"mean margin, {_unit(self.scoring)}; paired bootstrap interval")

    def _test(self, metric: str, after: Floats, before: Floats, how: str) -> PairedTest:
        moved = paired_bootstrap(after, before, draws=self.bootstrap, seed=self.seed)
        instructed = [
            f"; {name} after the instruction {scores.instruction!r}"
            for name, scores in zip((self.variant, self.reference), self.scores, strict=True)
            if scores.instruction
        ]
        return PairedTest(
            metric=metric,
            variant=self.variant,
            reference=self.reference,
            difference=moved.value,
            low=moved.low,
            high=moved.high,
            n=len(after),
            p_value=None,
            convention=f"{self.scores[0].conventions[self.scoring]}{''.join(instructed)}; {how}",
        )


def _require_comparable(variant_scores: PairScores, reference_scores: PairScores, scoring: Scoring, variant: str, reference: str) -> None:
    ids, others = list(variant_scores.frame["id"]), list(reference_scores.frame["id"])
    if ids != others:
        shared = len(set(ids) & set(others))
        raise ArtefactError(
            f"{variant} is scored on {len(ids)} pairs and {reference} on {len(others)}, {shared} of them the same.",
            "Evaluate both with the same crows_pairs settings.",
        )
    ways = [scores.conventions.get(scoring) for scores in (variant_scores, reference_scores)]
    if ways[0] != ways[1]:
        raise ArtefactError(f"{variant} is scored as {ways[0]!r}, {reference} as {ways[1]!r}.", "Evaluate both in the same way.")
