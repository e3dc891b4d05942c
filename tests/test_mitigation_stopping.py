"""The stop rule: what it measures, parity, the capability limit, and that a killed run judges as an unbroken one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from biasdiff_core.config import AuditConfig, EvaluationConfig, StopConfig, UnlearnConfig
from biasdiff_core.config.evaluation import StereoSetConfig
from biasdiff_core.config.mitigation import MitigationConfig
from biasdiff_core.errors import ConfigError, DataError
from biasdiff_core.mitigation.stopping import LOG_FILE, DevStop, Judged, read_judged
from biasdiff_core.mitigation.unlearn import Material, Unlearned, unlearn
from biasdiff_core.model.checkpoint import list_checkpoints
from biasdiff_core.model.lora import ADAPTER_FILE, lora_parameters
from biasdiff_core.model.tokenise import encode_texts
from biasdiff_core.results import no_progress
from tests.tiny_models import put_lora, tiny_loaded
from tests.tiny_unlearning import FORGET, RETAIN, TWINS, settings, train_origin

STOP = StopConfig(max_perplexity_ratio=50.0)
# The first sentence of each pair is far longer, so it is the less likely one: parity from the start.
EVEN = [("Aunts gossip about every neighbour in the street.", "Uncles gossip.")]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_origin(tmp_path_factory.mktemp("origin"))


def run(origin: Path, folder: Path, config: UnlearnConfig, dev: list[tuple[str, str]]) -> Unlearned:
    folder.mkdir(exist_ok=True)
    material = Material(forget=FORGET, retain=RETAIN, dev=dev)
    return unlearn(tiny_loaded(), origin, "npo", material, config, folder, progress=no_progress)


def test_margin_and_perplexity_sentence_by_sentence(tmp_path: Path) -> None:
    """Margins after the bos token; perplexity over the loss tokens of the retain examples, as they were trained on."""
    loaded = tiny_loaded()
    model = put_lora(loaded.model, ("q_proj", "v_proj"))
    texts = [example.text for example in RETAIN[:5]]
    DevStop(model, loaded.tokenizer, TWINS, encode_texts(loaded.tokenizer, texts), STOP, 100, tmp_path)

    def logs(ids: list[int]) -> list[float]:
        found = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0], -1)
        return [float(found[place - 1, ids[place]]) for place in range(1, len(ids))]

    bos = [loaded.tokenizer.bos_token_id]
    margins = [sum(logs(bos + loaded.tokenizer(a)["input_ids"])) - sum(logs(bos + loaded.tokenizer(b)["input_ids"])) for a, b in TWINS]
    each = [value for text in texts for value in logs(loaded.tokenizer(text)["input_ids"])]
    (origin,) = read_judged(tmp_path)
    assert origin.margin == pytest.approx(sum(margins) / len(margins), rel=1e-4)
    assert origin.perplexity == pytest.approx(math.exp(-sum(each) / len(each)), rel=1e-4)
    assert (origin.epoch, origin.perplexity_ratio, origin.ends) == (0, 1.0, "")


def shifted(model: object) -> None:
    with torch.no_grad():
        for parameter in lora_parameters(model).values():
            parameter += 0.2


@pytest.mark.parametrize(
    "stop, ends",
    [(STOP, "parity"), (replace(STOP, parity=False), ""), (replace(STOP, max_perplexity_ratio=1.0), "capability")],
)
def test_why_it_ends(tmp_path: Path, stop: StopConfig, ends: str) -> None:
    """The first of the pair is by far the longer, so the margin is below 0: parity. A model that was pushed about has lost capability."""
    loaded = tiny_loaded()
    model = put_lora(loaded.model, ("q_proj", "v_proj"))
    retain = encode_texts(loaded.tokenizer, [example.text for example in RETAIN[:5]])
    rule = DevStop(
        model, loaded.tokenizer, [("Aunts gossip at the port all day and all night.", "Aunts gossip.")], retain, stop, 100, tmp_path
    )
    before = rule.judged[0].perplexity
    shifted(model)
    judged = rule.judge(1)
    assert 1 < judged.perplexity_ratio < 50 and judged.perplexity_ratio == pytest.approx(judged.perplexity / before)
    assert judged.margin < 0 and judged.ends == ends
    assert rule.judged == read_judged(tmp_path) and [row.epoch for row in rule.judged] == [0, 1]


def test_parity_ends_training_and_the_epoch_is_kept(origin: Path, tmp_path: Path) -> None:
    config = settings(stop=STOP)
    done = run(origin, tmp_path / "parity", config, EVEN)
    assert done.judged[0].margin < 0
    assert [row.ends for row in done.judged] == ["", "parity"] and done.epoch == 1
    assert done.adapter == tmp_path / "parity" / "epoch-01"
    through = run(origin, tmp_path / "through", replace(config, stop=replace(STOP, parity=False)), EVEN)
    assert through.epoch == 4 and [row.epoch for row in through.judged] == [0, 1, 2, 3, 4]


def test_when_the_first_epoch_breaks_the_limit_the_origin_is_kept(origin: Path, tmp_path: Path) -> None:
    rough = settings(stop=StopConfig(max_perplexity_ratio=1.0), retain_weight=0.0, training={"learning_rate": 0.1})
    done = run(origin, tmp_path / "rough", rough, TWINS)
    assert done.epoch == 0 and done.adapter == origin and done.judged[-1].ends == "capability"
    assert [checkpoint.epoch for checkpoint in list_checkpoints(tmp_path / "rough")] == [1]


def test_when_a_later_epoch_breaks_the_limit_the_one_before_is_kept_also_at_the_last(origin: Path, tmp_path: Path) -> None:
    """The limit is put between what two epochs were measured at; the second is once the last of training."""
    free = settings(stop=replace(STOP, parity=False), retain_weight=0.0)
    measured = [row.perplexity_ratio for row in run(origin, tmp_path / "free", free, TWINS).judged]
    rising = next(n for n in range(2, 5) if measured[n] > max(1.0, *measured[1:n]))
    limit = replace(STOP, parity=False, max_perplexity_ratio=(measured[rising] + max(1.0, *measured[1:rising])) / 2)
    done = run(origin, tmp_path / "later", replace(free, stop=limit), TWINS)
    assert done.epoch == rising - 1 and done.adapter == tmp_path / "later" / f"epoch-0{rising - 1}"
    assert [row.perplexity_ratio for row in done.judged] == measured[: rising + 1]
    if rising == 4:
        assert len(list_checkpoints(tmp_path / "later")) == 4


def test_a_run_that_had_ended_does_not_go_on(origin: Path, tmp_path: Path) -> None:
    config = settings(stop=STOP)
    first = run(origin, tmp_path / "run", config, EVEN)
    before = (tmp_path / "run" / LOG_FILE).read_text()
    again = run(origin, tmp_path / "run", config, EVEN)
    assert again.epoch == first.epoch == 1 and (tmp_path / "run" / LOG_FILE).read_text() == before
    assert (again.adapter / ADAPTER_FILE).read_bytes() == (first.adapter / ADAPTER_FILE).read_bytes()


def test_the_log_is_one_line_an_epoch(tmp_path: Path) -> None:
    assert read_judged(tmp_path) == []
    rows = [Judged(epoch=epoch, margin=1.0 - epoch, perplexity=2.0, perplexity_ratio=1.0) for epoch in range(2)]
    (tmp_path / LOG_FILE).write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows))
    assert read_judged(tmp_path) == rows


def test_without_pairs_it_says_so(origin: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pair to judge parity on"):
        run(origin, tmp_path / "none", settings(stop=STOP), [])


def test_a_dev_set_that_is_reported_or_trained_on_is_refused(tmp_path: Path) -> None:
    reported = StereoSetConfig(path=str(tmp_path / "dev.json"))
    on_it = UnlearnConfig(stop=StopConfig(dev=str(tmp_path / "." / "dev.json")))
    with pytest.raises(ConfigError, match=r"mitigation.npo.stop.dev is the file that evaluation.stereoset reports on"):
        AuditConfig(name="a", mitigation=MitigationConfig(npo=on_it), evaluation=EvaluationConfig(stereoset=reported))
    AuditConfig(name="a", mitigation=MitigationConfig(npo=on_it))
    with pytest.raises(ConfigError, match="mitigation.twin.stop.dev is 'probes', the pairs that twin trains on"):
        AuditConfig(name="a", mitigation=MitigationConfig(twin=UnlearnConfig(stop=StopConfig())))
