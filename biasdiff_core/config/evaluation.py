"""What each variant is judged by."""

from __future__ import annotations

from typing import Literal

from biasdiff_core.config.base import config_class, require, require_positive

Scoring = Literal["paper", "sum", "mean", "unmodified", "modified"]


@config_class
class CrowsPairsConfig:
    """`path`: `bundled` (the wheel fairllms), or a file in the format of the original or of the revised version (Névéol et al. 2022).

    `pairs`: a seeded subset of so many, None for all. `prefix`: the token that all scorings but `paper` condition on: `bos` (else eos),
    `eos`, `none` (the first token is then only conditioned on), or a token id as digits.
    """

    path: str = "bundled"
    scorings: tuple[Scoring, ...] = ("paper", "sum")
    prefix: str = "bos"
    pairs: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(bool(self.scorings), "crows_pairs.scorings is empty.", "Name at least one of paper, sum, mean, unmodified, modified.")
        require(self.pairs is None or self.pairs >= 10, f"crows_pairs.pairs is {self.pairs}, but fewer than 10 pairs say nothing.")
        known = self.prefix in ("bos", "eos", "none") or self.prefix.isdigit()
        require(known, f"crows_pairs.prefix is {self.prefix!r}.", "Choose bos, eos, none or a token id.")


@config_class
class StereoSetConfig:
    """Intrasentence tests of a StereoSet file (Nadeem et al. 2021): `path`; `limit`: a seeded subset of so many, None for all."""

    path: str
    limit: int | None = None
    seed: int = 0


@config_class
class SeatConfig:
    """SEAT (May et al. 2019): a folder of test files `sent-*.jsonl`; `tests`: their names, empty for all in the folder.

    `pooling`: `mean` of the last layer over tokens, or its `last` token. `permutations`: draws where not all can be enumerated.
    """

    path: str
    tests: tuple[str, ...] = ()
    pooling: Literal["mean", "last"] = "mean"
    permutations: int = 99_999
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive("seat", permutations=self.permutations)


@config_class
class PerplexityConfig:
    """Held-out text, one document a line or a CSV/JSONL with `text_column`: `demo`, or a file. Never training rows (refused).

    Columns of a CSV without a header are numbered: `#2+#3` joins the second and the third (title and description of AG News).
    """

    path: str = "demo"
    text_column: str = "text"
    limit: int | None = 200


@config_class
class TrexConfig:
    """T-REx cloze queries: a table with columns `query` (the answer masked by `<extra_id_0>`) and `target` (the answer).

    Queries whose sentence was trained on are dropped and counted. `limit`: a seeded subset of so many, one a sentence. `candidates`:
    answers among which the rank of the right one's likelihood is taken (for small models, whose free answers are rarely exact); 0
    leaves the rank out.
    """

    path: str
    limit: int | None = 500
    candidates: int = 20
    max_new_tokens: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive("trex", max_new_tokens=self.max_new_tokens)
        require(self.candidates != 1 and self.candidates >= 0, f"trex.candidates is {self.candidates}, but must be 0, or 2 or more.")


@config_class
class AnswersConfig:
    """Answers of every variant side by side, decoded greedily: the questions of the paper's Tables 2 and 11 (`paper`) or a JSONL file.

    A line has `prompt` and, for multiple choice, `choices`.
    """

    path: str = "paper"
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        require_positive("answers", max_new_tokens=self.max_new_tokens)


@config_class
class LmEvalConfig:
    """Tasks of lm-evaluation-harness (the optional extra `lm-eval`), run on the variant as they are; `limit`: the first items of each.

    `include_path`: a folder with task files of one's own.
    """

    tasks: tuple[str, ...]
    limit: int | None = None
    include_path: str | None = None

    def __post_init__(self) -> None:
        require(bool(self.tasks), "lm_eval.tasks is empty.", "Name at least one task, e.g. arc_easy.")


@config_class
class EvaluationConfig:
    """Evaluations of every variant, those that are None left out, and the bootstrap that gives their intervals."""

    crows_pairs: CrowsPairsConfig = CrowsPairsConfig()
    perplexity: PerplexityConfig = PerplexityConfig()
    stereoset: StereoSetConfig | None = None
    seat: SeatConfig | None = None
    trex: TrexConfig | None = None
    answers: AnswersConfig | None = None
    lm_eval: LmEvalConfig | None = None
    token_budget: int = 512
    bootstrap: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive("evaluation", token_budget=self.token_budget, bootstrap=self.bootstrap)
