"""When unlearning ends early: parity of dev pairs, or a capability limit on retain examples; neither is a reported evaluation.

What was measured after each epoch stands in `stopping.jsonl`, epoch 0 being the origin, so a killed run judges as an unbroken one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from biasdiff_core.config import StopConfig
from biasdiff_core.errors import DataError
from biasdiff_core.model.checkpoint import Checkpoint
from biasdiff_core.model.likelihood import token_log_probs
from biasdiff_core.model.tokenise import Encoded, prefix_token
from biasdiff_core.workspace.artefacts import write_atomic

LOG_FILE = "stopping.jsonl"

Pair = tuple[str, str]  # the stereotype, and the sentence that differs from it in whom it is about


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What was measured after an epoch (0: of the origin).

    `margin`: mean over the dev pairs of log p(stereotype) − log p(other) in nats; `perplexity_ratio`: to the origin's on the same
    retain examples. `ends`: why training ends here, empty where it goes on.
    """

    epoch: int
    margin: float
    perplexity: float
    perplexity_ratio: float
    ends: Literal["", "parity", "capability"] = ""

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)


class DevStop:
    """A stop rule of the training loop: judges `model` as it stands after an epoch. Made while it is still the origin.

    Sentences are scored after the tokenizer's bos, else eos, token, as CrowS-Pairs' `sum`. Raises DataError without pairs.
    """

    def __init__(
        self, model: Any, tokenizer: Any, pairs: Sequence[Pair], retain: Sequence[Encoded], config: StopConfig, budget: int, folder: Path
    ) -> None:
        if not pairs:
            raise DataError("There is no pair to judge parity on.", "Give probes.twin_column, or a StereoSet file as stop.dev.")
        prefix = prefix_token(tokenizer)
        front = [] if prefix is None else [prefix]
        texts = tokenizer([text for pair in pairs for text in pair], add_special_tokens=False)["input_ids"]
        self.model, self.config, self.budget, self.path = model, config, budget, folder / LOG_FILE
        self.sentences = [front + ids for ids in texts]
        self.retain = [example for example in retain if example.loss_tokens]
        self.judged = read_judged(folder)
        if not self.judged:
            margin, perplexity = self._measure()
            self._keep(Judged(epoch=0, margin=margin, perplexity=perplexity, perplexity_ratio=1.0))

    def __call__(self, checkpoint: Checkpoint) -> bool:
        """Whether training ends after this epoch."""
        return bool(self.judge(checkpoint.epoch).ends)

    def judge(self, epoch: int) -> Judged:
        """Measure the model as it is now, after `epoch`; an epoch that was judged before is not measured again."""
        before = next((row for row in self.judged if row.epoch == epoch), None)
        if before is not None:
            return before
        margin, perplexity = self._measure()
        ratio = perplexity / self.judged[0].perplexity
        over, even = ratio > self.config.max_perplexity_ratio, self.config.parity and margin <= 0
        judged = Judged(
            epoch=epoch,
            margin=margin,
            perplexity=perplexity,
            perplexity_ratio=ratio,
            ends="capability" if over else "parity" if even else "",
        )
        self._keep(judged)
        return judged

    def _measure(self) -> tuple[float, float]:
        """Mean margin of the pairs in nats, and the perplexity of the retain examples' loss tokens."""
        sums = [float(logs.sum()) for logs in token_log_probs(self.model, self.sentences, token_budget=self.budget)]
        margins = [first - second for first, second in zip(sums[::2], sums[1::2], strict=True)]
        logs = token_log_probs(self.model, [example.ids for example in self.retain], token_budget=self.budget)
        kept = [values[example.loss_from - 1 :] for values, example in zip(logs, self.retain, strict=True)]
        nll = -sum(float(values.sum()) for values in kept) / sum(len(values) for values in kept)
        return sum(margins) / len(margins), math.exp(nll)

    def _keep(self, judged: Judged) -> None:
        self.judged.append(judged)
        write_atomic(self.path, "".join(json.dumps(row.to_json()) + "\n" for row in self.judged))


def read_judged(folder: Path) -> list[Judged]:
    """What a training folder's stop rule measured so far, by epoch; empty where it has none."""
    path = folder / LOG_FILE
    return [Judged(**json.loads(line)) for line in path.read_text(encoding="utf8").splitlines()] if path.exists() else []
