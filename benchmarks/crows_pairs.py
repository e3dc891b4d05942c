"""CrowS-Pairs of the bundled model: the reference figures of the evaluation, and the same pairs in lm-evaluation-harness.

python -m benchmarks.crows_pairs                       all scorings on all pairs, after the bos token where one is asked for
python -m benchmarks.crows_pairs --prefix 0            the same after token 0, <|endoftext|>
python -m benchmarks.crows_pairs --against lm-eval     log-likelihoods and speed beside lm-evaluation-harness (extra lm-eval)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from statistics import median
from typing import Any, get_args

import click
import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from benchmarks.record import dry_option, record, record_metric, under
from biasdiff_core.config import CrowsPairsConfig, EvaluationConfig, ModelConfig
from biasdiff_core.config.evaluation import Scoring
from biasdiff_core.config.model import Dtype
from biasdiff_core.evaluation.crows_pairs import figures, score_pairs
from biasdiff_core.evaluation.pairs import Pair, load_pairs
from biasdiff_core.model.load import DTYPES, load_model
from biasdiff_core.workspace.audits import default_workspace

SCORINGS: tuple[Scoring, ...] = get_args(Scoring)
BATCH_SIZES = (1, 8, 16, 32, 64)
ROUNDS = 5
SETTINGS = EvaluationConfig()


@click.command()
@click.option("--against", type=click.Choice(["lm-eval"]), help="Compare with this program instead.")
@click.option("--prefix", default="bos", show_default=True, help="bos, eos, none or a token id, for all scorings but `paper`.")
@click.option("--pairs", type=int, help="So many pairs, drawn with a seed. Default: all.")
@click.option("--speed-pairs", type=int, default=100, show_default=True, help="Pairs that the speed is measured on.")
@click.option("--dtype", type=click.Choice(get_args(Dtype)), default="float32", show_default=True, help="The model's.")
@dry_option
def main(against: str | None, prefix: str, pairs: int | None, speed_pairs: int, dtype: Dtype, dry: bool) -> None:
    """Record the figures of every scoring, or how the log-likelihoods and the speed compare."""
    loaded = load_model(ModelConfig(dtype=dtype), default_workspace())
    chosen = load_pairs(CrowsPairsConfig(pairs=pairs))
    bundled = (ModelConfig().name, loaded.model)
    if against is None:
        reference_figures(*bundled, loaded.tokenizer, chosen, prefix, dry)
        return
    # `load_model` has products of its own on some CPUs (docs/decisions/onednn.md).
    plain = AutoModelForCausalLM.from_pretrained(loaded.model.config.name_or_path, dtype=DTYPES[dtype]).to(loaded.device).eval()
    if dtype == "float32":  # in bfloat16 the harness rounds every sum to 8 bits
        for name, model in (bundled, ("tiny GPT-2, random weights", tiny_gpt2(len(loaded.tokenizer)))):
            largest_difference("crows.max_loglik_difference", name, model, model, loaded.tokenizer, chosen, dry)
        largest_difference("crows.max_loglik_difference.plain", *bundled, plain, loaded.tokenizer, chosen, dry)
    speed(*bundled, plain, loaded.tokenizer, load_pairs(CrowsPairsConfig(pairs=speed_pairs)), dtype, dry)


def reference_figures(name: str, model: Any, tokenizer: Any, pairs: Sequence[Pair], prefix: str, dry: bool) -> None:
    """Metric, stereotype and anti-stereotype score and mean margin in every scoring, and what the two passes took."""
    started = time.monotonic()
    scores = score_pairs(model, tokenizer, pairs, SCORINGS, token_budget=SETTINGS.token_budget, prefix=prefix)
    seconds = time.monotonic() - started
    for scoring in SCORINGS:
        for metric in figures(scores, scoring, bootstrap=SETTINGS.bootstrap, seed=SETTINGS.seed)[:4]:
            record_metric(metric.name, metric, model=name, dry=dry)
    record("crows_pairs.seconds", seconds, n=len(pairs), unit="seconds for all scorings", model=name, dry=dry)


def tiny_gpt2(vocabulary: int) -> GPT2LMHeadModel:
    """Two layers of random weights, wide enough that context matters: another architecture, and positions that are learnt."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=vocabulary, n_positions=512, n_embd=64, n_layer=2, n_head=4, initializer_range=0.2)
    return GPT2LMHeadModel(config).eval()


def largest_difference(metric: str, name: str, model: Any, theirs: Any, tokenizer: Any, pairs: Sequence[Pair], dry: bool) -> None:
    """Every sentence's `sum` against the log-likelihood of the harness, which is given `theirs`."""
    ours = summed(model, tokenizer, pairs)
    worst = float(np.abs(ours - harness(theirs, tokenizer, 16)(pairs)).max())
    unit = "nats, largest difference of a sentence's log-likelihood"
    record(metric, worst, n=len(ours), unit=unit, model=name, against=lm_eval(), dry=dry)


def speed(name: str, model: Any, plain: Any, tokenizer: Any, pairs: Sequence[Pair], dtype: Dtype, dry: bool) -> None:
    """Seconds of the harness at its best batch size over ours: median of rounds that take turns, both warmed up.

    The harness has the model as transformers loads it, `plain`; what ours takes on that one is a row of its own.
    """
    ways = {size: harness(plain, tokenizer, size) for size in BATCH_SIZES}
    ours = partial(summed, model, tokenizer)
    seconds = {size: min(timed(way, pairs), timed(way, pairs)) for size, way in ways.items()}
    ours(pairs)
    best = min(seconds, key=seconds.__getitem__)
    print("harness, seconds by batch size:", {size: round(taken, 2) for size, taken in seconds.items()})
    unit = f"times as fast, median of {ROUNDS} rounds in one process (low, high: extremes)"
    turns = [(timed(ways[best], pairs), timed(partial(summed, plain, tokenizer), pairs), timed(ours, pairs)) for _ in range(ROUNDS)]

    def row(metric: str, ratios: list[float], unit: str, against: str) -> None:
        low, high = min(ratios), max(ratios)
        record(under(metric, dtype), median(ratios), low=low, high=high, n=len(pairs), unit=unit, model=name, against=against, dry=dry)

    row("crows.speed_vs_lm_eval", [theirs / own for theirs, _, own in turns], f"{unit}; its batch size {best}, {dtype}", lm_eval())
    row("crows.speed_vs_plain", [slow / own for _, slow, own in turns], f"{unit}; {dtype}", "ours on the model as transformers loads it")


def summed(model: Any, tokenizer: Any, pairs: Sequence[Pair]) -> np.ndarray:
    """Our log-likelihoods [2 · pairs], more and less in turn."""
    frame = score_pairs(model, tokenizer, pairs, ("sum",), token_budget=SETTINGS.token_budget).frame
    return frame[["more_sum", "less_sum"]].to_numpy().ravel()


def harness(model: Any, tokenizer: Any, batch_size: int) -> Callable[[Sequence[Pair]], np.ndarray]:
    """The harness's log-likelihoods [2 · pairs], each sentence after its own prefix token."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    judge = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=batch_size)

    def log_likelihoods(pairs: Sequence[Pair]) -> np.ndarray:
        sentences = [sentence for pair in pairs for sentence in (pair.sent_more, pair.sent_less)]
        requests = [Instance(request_type="loglikelihood", doc={}, arguments=("", sentence), idx=0) for sentence in sentences]
        return np.array([value for value, _ in judge.loglikelihood(requests, disable_tqdm=True)])

    return log_likelihoods


def timed(work: Callable[[Sequence[Pair]], np.ndarray], pairs: Sequence[Pair]) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    work(pairs)
    return time.perf_counter() - started


def lm_eval() -> str:
    """The harness and its version."""
    return f"lm-eval {version('lm-eval')}"


if __name__ == "__main__":
    main()
