"""The preset `paper` from corpus to ranking beside its formulas, one block, one probe, one coordinate at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from biasdiff_core.audit import Audit
from biasdiff_core.config.presets import paper
from biasdiff_core.model.checkpoint import list_checkpoints, load_optimizer_state
from biasdiff_core.model.load import load_model
from biasdiff_core.model.lora import attach_adapter
from biasdiff_core.model.tokenise import encode, encode_texts
from biasdiff_core.pipeline import Pipeline
from tests.reference.gradients_slow import gradients_slow, map_slow, rademacher_matrix
from tests.tiny_audit import tiny_config

BLOCK, DIM = 2, 48
MATRICES: dict[str, Tensor] = {}  # by parameter, made once


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Audit:
    """The preset's gradients and scores in blocks of 2, on 39 rows, so that the last block has one, and at a gentler learning rate."""
    folder, published = tmp_path_factory.mktemp("paper"), paper("paper")
    config = tiny_config(folder, tiny_model_folder)
    corpus = Path(config.corpus.path)
    corpus.write_text("".join(corpus.read_text(encoding="utf8").splitlines(keepends=True)[:-1]), encoding="utf8")
    config = replace(
        config,
        gradients=replace(published.gradients, block_size=BLOCK, proj_dim=DIM, shard_size=16),
        scores=published.scores,
        removal=published.removal,
    )
    audit = Audit.from_config(config, folder / "workspace")
    Pipeline(audit.folder).analyse(until="ranking")
    return audit


def unit_projection(parts: dict[str, Tensor]) -> Tensor:
    """The unit vector [DIM] of the dense random projection of all parameters."""
    projected = torch.zeros(DIM, dtype=torch.float64)
    for name, part in parts.items():
        if name not in MATRICES:
            MATRICES[name] = rademacher_matrix(0, name, len(part), DIM)
        projected += MATRICES[name] @ part.double()
    return projected / projected.norm()


def test_the_scores_are_those_of_the_papers_formulas(audit: Audit) -> None:
    """Eq. 6: the mean over the probes of cos(δL(probe), Γ(block)) at the last checkpoint, both projected, Γ = m′ / √(v′ + ε).

    A block's gradient is that of its mean token loss. The store's fp16 keeps 11 bits of each number: a cosine is off by less than 5e-4.
    """
    checkpoint = list_checkpoints(audit.artefact("warmup").folder)[-1]
    loaded = load_model(audit.config.model, audit.folder.workspace)
    model = attach_adapter(loaded.model, checkpoint.folder)
    state = load_optimizer_state(checkpoint.folder, model)
    texts = [probe.text for probe in audit.probes()]
    probes = [unit_projection(gradients_slow(model, example)[1]) for example in encode_texts(loaded.tokenizer, texts)]
    encoded, expected = encode(loaded.tokenizer, audit.corpus()), []
    for start in range(0, len(encoded), BLOCK):
        block = encoded[start : start + BLOCK]
        tokens = sum(example.loss_tokens for example in block)
        mean: dict[str, Tensor] = {}
        for example in block:
            for name, gradient in gradients_slow(model, example)[1].items():
                mean[name] = mean.get(name, torch.zeros_like(gradient)) + gradient * example.loss_tokens / tokens
        constants = (state.step, state.beta1, state.beta2, state.epsilon)
        update = {name: map_slow("less", g, state.exp_avg[name], state.exp_avg_sq[name], *constants) for name, g in mean.items()}
        score = sum(float(probe @ unit_projection(update)) for probe in probes) / len(probes)
        expected += [score] * len(block)
    assert len(expected) == 39
    scores = pd.read_parquet(audit.artefact("scores").path("scores.parquet"))
    assert scores["score"].tolist() == pytest.approx(expected, abs=5e-4)
    assert scores["score"].max() - scores["score"].min() > 0.05  # the tolerance tells them apart


def test_blocks_are_ranked_whole(audit: Audit) -> None:
    rank = audit.ranking().set_index("id")["rank"]
    ranks = [rank[id_] for id_ in audit.corpus().ids]
    assert all(abs(one - other) == 1 for one, other in zip(ranks[:38:2], ranks[1:38:2], strict=True))
