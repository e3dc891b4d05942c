"""Where the corpus and the probing set come from, and how their columns are read."""

from __future__ import annotations

from biasdiff_core.config.base import config_class, require, require_positive


@config_class
class CorpusConfig:
    """`path`: `demo`, a CSV / JSONL / Parquet file, a folder saved by `datasets`, or a Hugging Face dataset id.

    A folder may name its split, `folder#split`, an id revision and split, `owner/name@revision#split`; `split` is that of those that
    name none.
    Either `text_column`, or `prompt_column` and `completion_column` (then only the completion is learned).
    Rows over `max_tokens` are listed and refused unless `truncate`.
    """

    path: str = "demo"
    text_column: str | None = "text"
    prompt_column: str | None = None
    completion_column: str | None = None
    label_column: str | None = None
    source_column: str | None = None
    group_column: str | None = None
    split: str = "train"
    max_tokens: int = 512
    truncate: bool = False

    def __post_init__(self) -> None:
        require_positive("corpus", max_tokens=self.max_tokens)
        pair = (self.prompt_column, self.completion_column)
        if self.text_column is not None:
            require(
                pair == (None, None),
                f"corpus.text_column is {self.text_column!r} and corpus.prompt_column/completion_column are {pair!r}: not both.",
                "Give the text column, or prompt and completion.",
            )
        else:
            require(
                None not in pair,
                f"corpus.text_column is not set and corpus.prompt_column/completion_column are {pair!r}.",
                "Give the text column, or both prompt and completion.",
            )
            require(
                pair[0] != pair[1],
                f"corpus.prompt_column and corpus.completion_column are both {pair[0]!r}: the model would learn to repeat the prompt.",
                "Give two columns.",
            )


@config_class
class ProbeConfig:
    """The probing set D_diff. `twin_column`: the anti-stereotype twin (D_anti-diff); `limit`: a seeded sample of so many."""

    path: str = "demo"
    text_column: str = "text"
    twin_column: str | None = None
    bias_type_column: str | None = None
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit >= 1, f"probes.limit is {self.limit}, but must be at least 1.")
