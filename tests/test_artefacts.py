"""Stage results on disk: published whole or not at all, keyed by content, verified; and the configs that keys are made of."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import biasdiff_core.config as config_module
from biasdiff_core.config import (
    AuditConfig,
    CorpusConfig,
    GradientConfig,
    LmEvalConfig,
    LoraConfig,
    MapConfig,
    MitigationConfig,
    ModelConfig,
    ProbeConfig,
    PromptConfig,
    RemovalConfig,
    ReviewConfig,
    ScoreConfig,
    SeatConfig,
    StereoSetConfig,
    StopConfig,
    TrainingConfig,
    TrexConfig,
    UnlearnConfig,
    WarmupConfig,
)
from biasdiff_core.config.base import added, config_class
from biasdiff_core.config.file import canonical, dump, key_form, load, parse
from biasdiff_core.config.presets import PRESETS, demo, preset
from biasdiff_core.errors import ArtefactError, ConfigError, JobError
from biasdiff_core.workspace.artefacts import (
    FORMATS,
    MANIFEST,
    archive,
    archived_files,
    digest_file,
    digest_source,
    is_complete,
    open_artefact,
    publish,
    stage_key,
    verify,
    write_atomic,
)

INPUTS = {"corpus": "c" * 12}
SETTINGS = {"lora": LoraConfig(r=4)}
KEY = stage_key("warmup", SETTINGS, INPUTS)


def make(audit: Path) -> Path:
    with publish(audit, "warmup", SETTINGS, INPUTS) as draft:
        (draft.folder / "deep").mkdir()
        (draft.folder / "deep" / "weights.bin").write_bytes(bytes(range(256)))
        (draft.folder / "figures.json").write_text('{"a": 1}')
        draft.facts["rows"] = 3
    return audit / "warmup" / KEY


def states(folder: Path) -> dict[str, str]:
    return {finding.path: finding.state for finding in verify(folder)}


def test_what_was_published_is_opened_with_all_it_was_made_from(tmp_path: Path) -> None:
    folder = make(tmp_path)
    artefact = open_artefact(tmp_path, "warmup", KEY)
    assert artefact.folder == folder and artefact.facts == {"rows": 3} and artefact.inputs == INPUTS
    assert artefact.config == {"lora": canonical(LoraConfig(r=4))}
    assert artefact.read_json("figures.json") == {"a": 1}
    assert {n: f["bytes"] for n, f in artefact.files.items()} == {"deep/weights.bin": 256, "figures.json": 8}
    assert artefact.files["figures.json"]["sha256"] == digest_file(folder / "figures.json")
    assert is_complete(tmp_path, "warmup", KEY) and sorted(p.name for p in (tmp_path / "warmup").iterdir()) == [KEY]
    with pytest.raises(ArtefactError, match="holds no other.json"):
        artefact.path("other.json")


def test_nothing_is_there_before_all_is_there(tmp_path: Path) -> None:
    with publish(tmp_path, "warmup", SETTINGS, INPUTS) as draft:
        (draft.folder / "figures.json").write_text("{}")
        assert not is_complete(tmp_path, "warmup", KEY)
        with pytest.raises(ArtefactError, match=f"no finished warmup {KEY}"):
            open_artefact(tmp_path, "warmup", KEY)
    assert is_complete(tmp_path, "warmup", KEY)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_no_finished_folder_and_the_next_try_is_clean(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), publish(tmp_path, "warmup", SETTINGS, INPUTS) as draft:
        (draft.folder / "stale.bin").write_bytes(b"x")
        raise error
    assert not is_complete(tmp_path, "warmup", KEY)
    make(tmp_path)
    assert "stale.bin" not in open_artefact(tmp_path, "warmup", KEY).files


def test_facts_that_are_not_finite_publish_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"), publish(tmp_path, "warmup", SETTINGS, INPUTS) as draft:
        draft.facts["auroc"] = float("nan")
    assert not is_complete(tmp_path, "warmup", KEY)


def test_a_resumable_stage_finds_what_was_done(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), publish(tmp_path, "warmup", SETTINGS, INPUTS, resumable=True) as draft:
        (draft.folder / "epoch-01").mkdir()
        (draft.folder / "epoch-01" / "weights").write_text("w")
        raise RuntimeError
    with publish(tmp_path, "warmup", SETTINGS, INPUTS, resumable=True) as draft:
        assert (draft.folder / "epoch-01" / "weights").read_text() == "w"
    finished = open_artefact(tmp_path, "warmup", KEY)
    assert list(finished.files) == ["epoch-01/weights"]
    assert json.loads((finished.folder / MANIFEST).read_text(encoding="utf8"))["resumed"]  # its seconds leave out what was done before


def test_a_finished_result_is_never_made_again(tmp_path: Path) -> None:
    folder = make(tmp_path)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(JobError, match="finished"):
        make(tmp_path)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def _hold(audit: Path, ready: Any, release: Any) -> None:
    with publish(audit, "warmup", SETTINGS, INPUTS):
        ready.set()
        release.wait(60)


def test_a_second_maker_is_refused_while_the_first_is_at_work(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready, release))
    process.start()
    try:
        assert ready.wait(60)
        with pytest.raises(JobError, match=f"making warmup {KEY} now"):
            make(tmp_path)
        with publish(tmp_path, "warmup", SETTINGS, {"corpus": "d" * 12}):  # another key is free
            pass
    finally:
        release.set()
        process.join(60)
    assert process.exitcode == 0 and is_complete(tmp_path, "warmup", KEY)


def test_a_maker_that_was_killed_leaves_no_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready, release))
    process.start()
    assert ready.wait(60)
    process.kill()
    process.join(60)
    assert not is_complete(tmp_path, "warmup", KEY)
    make(tmp_path)
    assert is_complete(tmp_path, "warmup", KEY)


def test_verify_finds_a_flipped_byte_a_missing_file_and_a_changed_record(tmp_path: Path) -> None:
    folder = make(tmp_path)
    assert states(folder) == {"deep/weights.bin": "ok", "figures.json": "ok"}
    data = bytearray((folder / "deep" / "weights.bin").read_bytes())
    data[100] ^= 1
    (folder / "deep" / "weights.bin").write_bytes(data)
    assert states(folder)["deep/weights.bin"] == "corrupt"
    (folder / "deep" / "weights.bin").unlink()
    assert states(folder) == {"deep/weights.bin": "missing", "figures.json": "ok"}
    record = json.loads((folder / MANIFEST).read_text())
    record["config"]["lora"]["r"] = 5
    (folder / MANIFEST).write_text(json.dumps(record))
    assert states(folder)[MANIFEST] == "corrupt"


def test_archived_files_keep_their_digest_and_say_so(tmp_path: Path) -> None:
    make(tmp_path)
    artefact = open_artefact(tmp_path, "warmup", KEY)
    archive(artefact, ["deep/weights.bin"])
    assert states(artefact.folder) == {"deep/weights.bin": "archived", "figures.json": "ok"}
    archive(artefact, ["figures.json"])
    assert archived_files(artefact.folder) == ["deep/weights.bin", "figures.json"]
    with pytest.raises(ArtefactError, match="is archived"):
        open_artefact(tmp_path, "warmup", KEY).path("deep/weights.bin")
    (artefact.folder / "figures.json").write_text("restored wrongly")
    assert states(artefact.folder)["figures.json"] == "corrupt"


def test_a_folder_at_the_wrong_place_or_without_json_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path)
    os.rename(folder, folder.with_name("0" * 12))
    with pytest.raises(ArtefactError, match=f"says it is warmup/{KEY}, but lies at warmup/{'0' * 12}"):
        open_artefact(tmp_path, "warmup", "0" * 12)
    (tmp_path / "warmup" / ("0" * 12) / MANIFEST).write_text("{")
    with pytest.raises(ArtefactError, match="is not JSON"):
        open_artefact(tmp_path, "warmup", "0" * 12)


def test_write_atomic_replaces_whole_files(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "é")
    write_atomic(tmp_path / "a", b"\x00")
    assert (tmp_path / "a").read_bytes() == b"\x00" and [p.name for p in tmp_path.iterdir()] == ["a"]


# Keys.


def test_keys_are_pinned() -> None:
    """A change here makes every result on every disk stale: only together with a bump of FORMATS."""
    assert FORMATS["map2d"] == 1
    assert stage_key("map2d", {"seed": 0}, {"gradients": "0123456789ab"}) == "e90d8caf7115"


def test_whole_numbers_and_floats_give_the_same_key() -> None:
    one, other = TrainingConfig(learning_rate=1, max_grad_norm=1), TrainingConfig(learning_rate=1.0, max_grad_norm=1.0)
    assert stage_key("warmup", one, {}) == stage_key("warmup", other, {})
    nested, also = (AuditConfig(name="a", removal=RemovalConfig(percent=p)) for p in (35, 35.0))  # type: ignore[arg-type]
    assert stage_key("warmup", {"audit": nested}, {}) == stage_key("warmup", {"audit": also}, {})


@given(st.permutations(["model", "corpus", "adapter"]), st.permutations(["lora", "seed"]))
def test_the_order_of_names_does_not_matter(inputs: list[str], settings: list[str]) -> None:
    values: dict[str, Any] = {"lora": LoraConfig(), "seed": 3}
    expected = stage_key("warmup", values, {"adapter": "adapter", "corpus": "corpus", "model": "model"})
    assert stage_key("warmup", {name: values[name] for name in settings}, {name: name for name in inputs}) == expected


def test_everything_that_matters_changes_the_key() -> None:
    base = stage_key("warmup", TrainingConfig(), {"a": "1"})
    others = [
        stage_key("mitigation", TrainingConfig(), {"a": "1"}),
        stage_key("warmup", TrainingConfig(), {"a": "2"}),
        stage_key("warmup", TrainingConfig(), {"b": "1"}),
        *(stage_key("warmup", replace(TrainingConfig(), **changed(TrainingConfig(), name)), {"a": "1"}) for name in names(TrainingConfig)),
        *(stage_key("warmup", replace(GradientConfig(), **changed(GradientConfig(), name)), {"a": "1"}) for name in names(GradientConfig)),
    ]
    assert len({base, *others}) == len(others) + 1
    with pytest.raises(KeyError):
        stage_key("nonsense", {}, {})


def names(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def changed(config: Any, name: str) -> dict[str, Any]:
    """Another lawful value of one field."""
    value = getattr(config, name)
    if isinstance(value, MapConfig):
        return {name: MapConfig(train="sgd")}
    if isinstance(value, tuple):
        return {name: (*value, 1.0)}
    return {
        name: {"all": "last", "last": "all", "countsketch": "rademacher", "float16": "int8"}[value]
        if isinstance(value, str)
        else value / 2
        if isinstance(value, float)
        else value + 1
    }


# Configs.

CLASSES = [getattr(config_module, name) for name in config_module.__all__ if isinstance(getattr(config_module, name), type)]
REQUIRED: dict[Any, dict[str, Any]] = {
    AuditConfig: {"name": "a"},
    LmEvalConfig: {"tasks": ("arc_easy",)},
    SeatConfig: {"path": "seat"},
    StereoSetConfig: {"path": "dev.json"},
    TrexConfig: {"path": "queries.csv"},
}


def test_every_config_class_is_among_those_tested() -> None:
    found = {
        value
        for name in ("audit", "data", "evaluation", "gradients", "mitigation", "model", "training")
        for value in vars(getattr(config_module, name)).values()
        if isinstance(value, type) and dataclasses.is_dataclass(value)
    }
    assert found == set(CLASSES) and len(found) == 24


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_unknown_key_is_refused_in_every_config_class(cls: Any) -> None:
    good = REQUIRED.get(cls, {})
    assert parse(cls, good) == cls(**good)
    with pytest.raises(ConfigError, match="mispelt"):
        parse(cls, {**good, "mispelt": 1})
    with pytest.raises(TypeError):
        cls(**good, mispelt=1)
    with pytest.raises(TypeError):
        cls("positional")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(cls(**good), names(cls)[0], None)


@pytest.mark.parametrize(
    "place",
    [
        *("model", "lora", "corpus", "probes", "warmup", "warmup.training", "gradients", "gradients.maps", "scores", "review", "removal"),
        *("mitigation", "mitigation.npo", "mitigation.npo.training", "mitigation.twin", "mitigation.prompt"),
        *("evaluation", "evaluation.crows_pairs", "evaluation.perplexity"),
    ],
)
def test_an_unknown_key_is_refused_at_every_depth_of_a_file(tmp_path: Path, place: str) -> None:
    record = canonical(AuditConfig(name="a"))
    part = record
    for name in place.split("."):
        part = part[name]
    part["mispelt"] = 1
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(record))
    with pytest.raises(ConfigError, match=re.escape(f"{place}.mispelt")):
        load(tmp_path / "audit.yaml")


@pytest.mark.parametrize("which", [*sorted(PRESETS), "demo"])
def test_presets_come_back_from_yaml(tmp_path: Path, which: str) -> None:
    config = demo("quick") if which == "demo" else preset(which, "some-name")
    (tmp_path / "audit.yaml").write_text(dump(config), encoding="utf8")
    assert load(tmp_path / "audit.yaml") == config
    assert dump(load(tmp_path / "audit.yaml")) == dump(config)
    assert stage_key("warmup", {"audit": load(tmp_path / "audit.yaml")}, {}) == stage_key("warmup", {"audit": config}, {})


def test_names_outside_ascii_come_back_too(tmp_path: Path) -> None:
    config = AuditConfig(name="a", corpus=CorpusConfig(path="données/ü.csv", text_column="texte brut"))
    (tmp_path / "audit.yaml").write_text(dump(config), encoding="utf8")
    assert load(tmp_path / "audit.yaml") == config


@dataclass(frozen=True)
class Contradiction:
    cls: Any
    values: dict[str, Any]
    fields: tuple[str, ...]


CONTRADICTIONS = [
    Contradiction(CorpusConfig, {"prompt_column": "p"}, ("corpus.text_column", "prompt_column")),
    Contradiction(CorpusConfig, {"text_column": None}, ("corpus.text_column", "prompt_column", "completion_column")),
    Contradiction(CorpusConfig, {"text_column": None, "prompt_column": "p"}, ("corpus.text_column", "completion_column")),
    Contradiction(
        AuditConfig,
        {"name": "a", "scores": ScoreConfig(kind="contrast"), "probes": ProbeConfig(path="p.csv")},
        ("scores.kind", "probes.twin_column"),
    ),
    Contradiction(UnlearnConfig, {"combine": "pareto", "retain_weight": 0.0}, ("combine", "retain_weight")),
    Contradiction(MitigationConfig, {"twin": UnlearnConfig(by_influence=True)}, ("mitigation.twin", "by_influence")),
    Contradiction(
        AuditConfig,
        {"name": "a", "review": ReviewConfig(simulate_from_labels=True)},
        ("review.simulate_from_labels", "corpus.label_column"),
    ),
]


@pytest.mark.parametrize("case", CONTRADICTIONS, ids=lambda case: "+".join(case.fields))
def test_contradictions_name_both_fields(case: Contradiction) -> None:
    for build in (lambda: case.cls(**case.values), lambda: parse(case.cls, {n: canonical(v) for n, v in case.values.items()})):
        with pytest.raises(ConfigError) as caught:
            build()
        assert all(field in str(caught.value) for field in case.fields) and caught.value.mend


@pytest.mark.parametrize(
    ("cls", "values", "field"),
    [
        (TrainingConfig, {"epochs": 0}, "training.epochs"),
        (TrainingConfig, {"learning_rate": -1.0}, "training.learning_rate"),
        (TrainingConfig, {"learning_rate": float("nan")}, "training.learning_rate"),
        (TrainingConfig, {"warmup_ratio": 1.5}, "training.warmup_ratio"),
        (TrainingConfig, {"beta2": 1.0}, "training.beta2"),
        (TrainingConfig, {"weight_decay": -0.1}, "training.weight_decay"),
        (WarmupConfig, {"few_fraction": 0.0}, "warmup.few_fraction"),
        (LoraConfig, {"target_modules": ()}, "lora.target_modules"),
        (LoraConfig, {"dropout": 1.1}, "lora.dropout"),
        (GradientConfig, {"proj_dim": 0}, "gradients.proj_dim"),
        (GradientConfig, {"block_size": 64, "shard_size": 128}, "gradients.block_size is 64, but must be at most 32"),
        (ScoreConfig, {"top_probes": 0}, "scores.top_probes"),
        (RemovalConfig, {"percent": 0.0}, "removal.percent"),
        (RemovalConfig, {"percent": 100.5}, "removal.percent"),
        (UnlearnConfig, {"beta": 0.0}, "unlearning.beta"),
        (UnlearnConfig, {"retain_weight": -1.0}, "retain_weight"),
        (UnlearnConfig, {"kl_weight": -0.1}, "kl_weight"),
        (UnlearnConfig, {"forget_weight": 0.0}, "unlearning.forget_weight"),
        (StopConfig, {"max_perplexity_ratio": 0.9}, "stop.max_perplexity_ratio"),
        (StopConfig, {"pairs": 0}, "stop.pairs"),
        (PromptConfig, {"text": "  "}, "prompt.text"),
        (MitigationConfig, {"random_seeds": ()}, "mitigation.random_seeds"),
        (MitigationConfig, {"random_seeds": (1, 1)}, "mitigation.random_seeds"),
        (ProbeConfig, {"limit": 0}, "probes.limit"),
        (AuditConfig, {"name": "Über uns"}, "name"),
        (AuditConfig, {"name": "../up"}, "name"),
    ],
)
def test_values_that_cannot_be_meant_are_refused_naming_the_field(cls: Any, values: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field.replace(".", r"\.")):
        cls(**values)


def test_a_wrong_type_in_a_file_is_refused_naming_file_and_field(tmp_path: Path) -> None:
    path = tmp_path / "audit.yaml"
    path.write_text("name: a\nmodel: {dtype: float8}\n")
    with pytest.raises(ConfigError, match=r"audit\.yaml: model\.dtype"):
        load(path)
    path.write_text("name: [\n")
    with pytest.raises(ConfigError, match="is not YAML"):
        load(path)
    path.write_text("- a\n")
    with pytest.raises(ConfigError, match="whole file"):
        load(path)
    with pytest.raises(ConfigError, match="no file"):
        load(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="no preset 'fast'"):
        preset("fast", "a")
    assert ModelConfig().name.startswith("bundled:")


def test_a_source_is_digested_anew_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_text("a\n1\n")
    first = digest_source(path)
    assert first == digest_file(path) == digest_source(path)
    path.write_text("a\n2\n")
    os.utime(path, ns=(1, 1))  # a clock's tick may be coarser than two writes
    assert digest_source(path) == digest_file(path) != first


@config_class
class Earlier:
    size: int = 1


@config_class
class Later:
    size: int = 1
    way: str = added("old")


@config_class
class Outer:
    inner: Later = Later()
    name: str = "a"


def test_an_option_that_came_later_leaves_older_keys_as_they_are_until_it_is_used() -> None:
    assert key_form(Later()) == key_form(Earlier()) == {"size": 1}
    assert key_form(Outer()) == {"inner": {"size": 1}, "name": "a"} and canonical(Outer())["inner"] == {"size": 1, "way": "old"}
    assert stage_key("warmup", Later(), {}) == stage_key("warmup", Earlier(), {})
    assert key_form(Outer(inner=Later(way="new"))) == {"inner": {"size": 1, "way": "new"}, "name": "a"}
    assert stage_key("warmup", Later(way="new"), {}) != stage_key("warmup", Earlier(), {})
