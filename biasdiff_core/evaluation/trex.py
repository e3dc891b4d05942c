"""T-REx cloze queries (Elsahar et al. 2018): can the model still fill in facts (the paper's Trex score, Appendices D and E)?

Only sentences that the model was not trained on are asked for, which the published queries, all made from training sentences,
are not. Only `ask` loads torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from biasdiff_core.config.evaluation import TrexConfig
from biasdiff_core.corpus.examples import content_id
from biasdiff_core.corpus.refusals import Fault, Flaw, Refusals, flaw_of
from biasdiff_core.corpus.sources import open_source, require_columns
from biasdiff_core.corpus.summary import normalised
from biasdiff_core.errors import DataError
from biasdiff_core.evaluation.items import ItemMetric, item_frame
from biasdiff_core.evaluation.statistics import bootstrap_mean, wilson
from biasdiff_core.results import MetricResult, Progress, ProgressCallback, no_progress

TABLE_FILE = "trex.parquet"
GAP = "<extra_id_0>"
# Word for word from the paper (Appendix E, "TREX Prompt"); its first example has no "Context:".
PROMPT = """Example 1:

Particularly famous for its suggestive music video which was censored on certain TV channels, the song was a great success in \
France, Italy, Switzerland, Austria and <extra_id_0> where it was a top ten hit.

Missing word(s): Germany

Example 2:

Context: Sevan, is a town and popular resort in Armenia, located in the Gegharkunik Province on the northwestern shores of \
<extra_id_0>.

Missing word(s): Lake Sevan

Now fill in the blank. You should only output the word(s) without any thinking process.

Context: {query}

Missing word(s):"""
EXACT, FIRST, RECIPROCAL = "trex.exact_match", "trex.answer_rank", "trex.mean_reciprocal_rank"
METRICS: Mapping[str, ItemMetric] = {
    EXACT: ItemMetric(
        convention="T-REx: exact match of the greedy answer; percentage points, paired bootstrap; exact McNemar", scale=100.0, binary=True
    ),
    FIRST: ItemMetric(
        convention="T-REx: right answer likeliest of the candidates; percentage points, paired bootstrap; exact McNemar",
        scale=100.0,
        binary=True,
    ),
    RECIPROCAL: ItemMetric(convention="T-REx: mean reciprocal rank of the right answer among the candidates; paired bootstrap"),
}

_COLUMNS = ("query", "target")
_EMPTY = Fault("with an empty cell", f"Fill {' and '.join(_COLUMNS)}, or remove the query.")
_NO_GAP = Fault(f"without exactly one {GAP}", f"Mask the answer by {GAP}.")
_CUE = "Missing word(s):"


@dataclass(frozen=True, kw_only=True)
class Query:
    """`text`: a sentence with one gap; `answer`: what stood there. `id`: hash of both (never a row number)."""

    id: str
    text: str
    answer: str

    @property
    def sentence(self) -> str:
        return self.text.replace(GAP, self.answer)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Queries to ask, with the `candidates` of each, the right answer first, and how many were left out and why."""

    queries: tuple[Query, ...]
    candidates: tuple[tuple[str, ...], ...]
    trained_on: int
    visible: int


def load_queries(path: str) -> list[Query]:
    """All queries of a table with the columns `query` and `target`. Raises DataError for rows that are none, listed by line."""
    table = open_source(path, "train", demo="cloze_queries.csv")
    require_columns(table, path, _COLUMNS)
    refusals = Refusals(path, table.unit)
    queries: dict[str, Query] = {}
    for row in table.rows(_COLUMNS):
        flaw = row.flaw or flaw_of(*row.cells.values()) or _query_flaw(row.cells)
        if flaw:
            refusals.add(flaw, row.line)
            continue
        text, answer = (row.cells[column] for column in _COLUMNS)
        key = content_id(text, answer, 0)
        queries[key] = Query(id=key, text=text, answer=answer)
    refusals.raise_any()
    return list(queries.values())


def select(queries: Sequence[Query], trained_on: Sequence[str], config: TrexConfig) -> Selection:
    """A seeded sample of at most `config.limit` queries, one a sentence (queries of one sentence are not independent).

    Left out are queries of sentences that were trained on (equal but for case, punctuation and white space), and those whose answer
    still stands elsewhere in the query. Candidates are drawn from the answers of all other queries that are left. Raises
    DataError when no query is left, or fewer different answers than candidates.
    """
    trained = {normalised(text) for text in trained_on}
    unseen = [query for query in queries if normalised(query.sentence) not in trained]
    usable = [query for query in unseen if not _visible(query)]
    if not usable:
        raise DataError(
            f"None of the {len(queries)} T-REx queries can be asked: {len(queries) - len(unseen)} are of sentences that the model was "
            f"trained on, {len(unseen)} show their answer.",
            "Hold T-REx sentences out of the corpus, or give trex.path other queries.",
        )
    generator = np.random.default_rng(config.seed)
    by_sentence: dict[str, Query] = {}
    for place in generator.permutation(len(usable)):
        by_sentence.setdefault(normalised(usable[place].sentence), usable[place])
    chosen = tuple(by_sentence.values())[: config.limit]
    return Selection(
        queries=chosen,
        candidates=_candidates(chosen, usable, config.candidates, generator),
        trained_on=len(queries) - len(unseen),
        visible=len(unseen) - len(usable),
    )


def ask(
    model: Any,
    tokenizer: Any,
    selection: Selection,
    *,
    instruction: str = "",
    max_new_tokens: int,
    token_budget: int,
    progress: ProgressCallback = no_progress,
) -> pd.DataFrame:
    """Ask every query with the paper's two-shot prompt, `instruction` in front of it: columns id, query, target, answer, rank.

    `answer`: decoded greedily up to the first line break. `rank` (float; NaN without candidates): of the right answer by mean
    log-likelihood per token among the candidates, ties against it. The two-shot prompt is computed once for all queries.
    """
    from biasdiff_core.model.generate import decode, prompt_batches
    from biasdiff_core.model.likelihood import continuation_log_probs

    queries = selection.queries
    prompts = tokenizer([instruction + PROMPT.format(query=query.text) for query in queries])["input_ids"]
    options = _answer_ids(tokenizer, selection.candidates)
    room = max([max_new_tokens, *(sum(map(len, tokens)) for tokens in options)])
    answers, ranks = [""] * len(queries), [float("nan")] * len(queries)
    done = 0
    for batch in prompt_batches(model, prompts, room=room, token_budget=token_budget):
        if options:
            own = [options[place] for place in batch.places]
            logs = continuation_log_probs(model, batch.ids, own, cache=batch.cache, token_budget=token_budget)
            for place, values in zip(batch.places, logs, strict=True):
                ranks[place] = _rank([float(value.mean()) for value in values])
        for place, text in zip(batch.places, decode(model, tokenizer, batch, max_new_tokens=max_new_tokens, stop=["\n"]), strict=True):
            answers[place] = text.strip()
        done += len(batch.places)
        progress(Progress(stage="evaluation", done=done, total=len(queries), unit="queries", message="T-REx"))
    return pd.DataFrame(
        {
            "id": [query.id for query in queries],
            "query": [query.text for query in queries],
            "target": [query.answer for query in queries],
            "answer": answers,
            "rank": ranks,
        }
    )


def figures(
    table: pd.DataFrame, selection: Selection, config: TrexConfig, *, instruction: str = "", bootstrap: int, seed: int
) -> list[MetricResult]:
    """Exact match (percent), and with candidates the share of right answers ranked first (percent) and the mean reciprocal rank."""
    told = f", after the instruction {instruction!r}" if instruction.strip() else ""
    left_out = (
        f"paper's two-shot prompt, plain text{told}; one query a sentence; left out: {selection.trained_on} of sentences trained on, "
        f"{selection.visible} whose answer is visible"
    )
    dropped = selection.trained_on + selection.visible
    exact = _exact(table)
    found = [
        _percent(
            EXACT,
            exact,
            chance=0.0,
            not_scored=dropped,
            convention=f"T-REx exact match: greedy answer of at most {config.max_new_tokens} tokens up to the line break, equal but for "
            f"case, white space, articles and punctuation at the ends, empty is wrong; {left_out}; Wilson 95 % interval",
        )
    ]
    if not config.candidates:
        return found
    rank = f"the right answer's rank by mean log-likelihood per token among {config.candidates} answers, the others of other queries"
    reciprocal = 1 / table["rank"].to_numpy(dtype=np.float64)
    mean = bootstrap_mean(reciprocal, draws=bootstrap, seed=seed)
    return [
        *found,
        _percent(
            FIRST,
            reciprocal == 1,
            chance=100 / config.candidates,
            not_scored=dropped,
            convention=f"T-REx: share of queries with 1 as {rank}; {left_out}; Wilson 95 % interval",
        ),
        MetricResult(
            name=RECIPROCAL,
            value=mean.value,
            low=mean.low,
            high=mean.high,
            n=len(table),
            not_scored=dropped,
            chance=sum(1 / place for place in range(1, config.candidates + 1)) / config.candidates,
            convention=f"T-REx: mean reciprocal of {rank}; {left_out}; bootstrap 95 % interval, {bootstrap} draws",
        ),
    ]


def items(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Rows of `METRICS` for paired tests; of the ranks only where there are candidates."""
    ids = [str(key) for key in table["id"]]
    ranks = table["rank"].to_numpy(dtype=np.float64)
    exact = item_frame(EXACT, ids, list(_exact(table)))
    if np.isnan(ranks).all():
        return [exact]
    return [exact, item_frame(FIRST, ids, list(ranks == 1)), item_frame(RECIPROCAL, ids, list(1 / ranks))]


def normal_answer(text: str) -> str:
    """What is compared: without case, white space but single spaces, and an article and punctuation at the ends."""
    trimmed = re.sub(r"^[\W_]+|[\W_]+$", "", " ".join(text.split()).casefold())
    return re.sub(r"^(the|an|a) ", "", trimmed)


def _query_flaw(cells: Mapping[str, Any]) -> Flaw | None:
    if not all((cells.get(column) or "").strip() for column in _COLUMNS):
        return _EMPTY, ""
    return None if cells["query"].count(GAP) == 1 else (_NO_GAP, "")


def _visible(query: Query) -> bool:
    """Whether the answer stands, as whole words, in what is left of the sentence."""
    return f" {normalised(query.answer)} " in f" {normalised(query.text.replace(GAP, ' '))} "


def _candidates(
    chosen: Sequence[Query], usable: Sequence[Query], count: int, generator: np.random.Generator
) -> tuple[tuple[str, ...], ...]:
    """The right answer and `count` − 1 different ones for each query; nothing when `count` is 0."""
    if not count:
        return ()
    by_form = {normal_answer(query.answer): query.answer for query in usable}
    forms = sorted(by_form)
    if len(forms) < count:
        raise DataError(f"The T-REx queries have {len(forms)} different answers, not {count}.", "Lower trex.candidates, or set it to 0.")
    found = []
    for query in chosen:
        drawn = [forms[place] for place in generator.choice(len(forms), size=count, replace=False)]
        others = [by_form[form] for form in drawn if form != normal_answer(query.answer)]
        found.append((query.answer, *others[: count - 1]))
    return tuple(found)


def _answer_ids(tokenizer: Any, candidates: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Token ids of each candidate as they follow the prompt's last line: [queries][candidates]."""
    distinct = list(dict.fromkeys(answer for answers in candidates for answer in answers))
    if not distinct:
        return []
    cue = len(tokenizer(_CUE, add_special_tokens=False)["input_ids"])
    lines = tokenizer([f"{_CUE} {answer}" for answer in distinct], add_special_tokens=False)["input_ids"]
    ids = {answer: line[cue:] for answer, line in zip(distinct, lines, strict=True)}
    return [[ids[answer] for answer in answers] for answers in candidates]


def _rank(means: Sequence[float]) -> float:
    """Rank of the first, ties against it."""
    return float(sum(mean >= means[0] for mean in means))


def _exact(table: pd.DataFrame) -> np.ndarray:
    """Whether each answer is right [queries]."""
    pairs = (
        (normal_answer(str(answer)), normal_answer(str(target))) for answer, target in zip(table["answer"], table["target"], strict=True)
    )
    return np.array([bool(answer) and answer == target for answer, target in pairs])


def _percent(name: str, right: np.ndarray, *, chance: float, not_scored: int, convention: str) -> MetricResult:
    found = wilson(int(right.sum()), len(right))
    return MetricResult(
        name=name,
        value=100 * found.value,
        low=100 * found.low,
        high=100 * found.high,
        n=len(right),
        not_scored=not_scored,
        chance=chance,
        convention=convention,
        unit="%",
    )
