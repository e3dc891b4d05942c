"""Bad input that people bring, and what is said of it: the cases of docs/bad-input.md, each carried out by the real reader.

python -m tests.bad_input     carry all cases out and write the document anew
"""

from __future__ import annotations

import gzip
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from biasdiff_core.cli_common import print_rows
from biasdiff_core.config import AnswersConfig, CorpusConfig, CrowsPairsConfig, LoraConfig, ModelConfig, PerplexityConfig, ProbeConfig
from biasdiff_core.config.file import load
from biasdiff_core.corpus.probes import read_probes
from biasdiff_core.corpus.read import count_corpus, read_corpus
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.evaluation.answers import load_questions
from biasdiff_core.evaluation.pairs import load_pairs
from biasdiff_core.evaluation.perplexity import load_texts
from biasdiff_core.model.checkpoint import import_checkpoint
from biasdiff_core.model.load import load_model
from biasdiff_core.model.lora import add_lora, save_adapter
from biasdiff_core.model.source import lora_settings
from biasdiff_core.probe_report import probe_quality
from biasdiff_core.report import plain
from biasdiff_core.review.decisions import DecisionLog
from biasdiff_core.workspace.database import database
from tests.tiny_audit import save_model
from tests.tiny_models import put_lora, tiny_base

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "bad-input.md"
Content = str | bytes
Provoke = Callable[[Path], object]

# Where each kind of input is read, so where its messages are seen.
WHERE: Mapping[str, str] = {
    "Corpus": "`run`, `corpus build`; page Audits",
    "Probing set": "`run`; page Audits",
    "Quality of the probes": "`probes check`; page Probes",
    "audit.yaml": "`run`; page Audits",
    "Base model": "`run`; page Audits",
    "Adapter": "`new`, `run`; page Audits",
    "Decisions": "`decide import`",
    "Evaluation file": "`run`, `evaluate`; page Audits",
    "Hostile text": "as the row says",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """`provoke` reads the input in an empty folder: what it raises is the message; where it raises nothing, what it returns is."""

    kind: str
    wrong: str
    provoke: Provoke

    @property
    def id(self) -> str:
        return f"{self.kind}: {self.wrong}"


def outcome(case: Case, folder: Path) -> tuple[str, str]:
    """(what is said, how to mend it; empty where the input is taken), without the path of `folder`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about the files
            said, mend = str(case.provoke(folder)), ""
    except BiasDiffError as error:
        said, mend = error.what, error.mend
    return tuple(text.replace(f"{folder}/", "").replace(str(folder), "FOLDER") for text in (said, mend))  # type: ignore[return-value]


def row(case: Case, folder: Path) -> str:
    """The case's row of the table."""
    said, mend = outcome(case, folder)
    return f"| {case.wrong} | {_verbatim(said)} | {_verbatim(mend) if mend else '(taken)'} | {WHERE[case.kind]} |"


def _verbatim(text: str) -> str:
    """`text` as code, so that Markdown makes nothing of it."""
    fence = "``" if "`" in text else "`"
    return f"{fence} {text} {fence}".replace("|", "\\|")


def _file(folder: Path, name: str, content: Content) -> str:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return str(folder / name)


def _corpus(wrong: str, name: str, content: Content, **options: Any) -> Case:
    def provoke(folder: Path) -> str:
        config = CorpusConfig(path=_file(folder, name, content), **options)
        count = count_corpus(config)
        read_corpus(config, count_tokens=lambda texts: [len(text.split()) for text in texts])
        unprompted = f", {count.unprompted} with an empty prompt" if count.unprompted else ""
        return f"{count.rows_used} of {count.rows_read} rows can be used; {count.empty} empty{unprompted}, {count.repeated} repeated."

    return Case(kind="Corpus", wrong=wrong, provoke=provoke)


def _parquet(wrong: str, columns: Mapping[str, Any], **options: Any) -> Case:
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(columns)), buffer)
    return _corpus(wrong, "c.parquet", buffer.getvalue().to_pybytes(), **options)


def _probes(wrong: str, content: str) -> Case:
    def provoke(folder: Path) -> str:
        path = _file(folder, "probes.csv", content)
        probes, notes = read_probes(ProbeConfig(path=path, twin_column="twin", bias_type_column="bias_type"))
        return " ".join([f"Probes: {len(probes)}; bias types: {len(probes.bias_types)}.", *notes])

    return Case(kind="Probing set", wrong=wrong, provoke=provoke)


def _quality(wrong: str, flag: str, probes: str, corpus: str) -> Case:
    def provoke(folder: Path) -> str:
        absent = BiasDiffError("not asked")
        found, _ = read_probes(ProbeConfig(path=_file(folder, "p.csv", probes), twin_column="twin", bias_type_column="bias_type"))
        texts = read_corpus(CorpusConfig(path=_file(folder, "c.csv", corpus))).corpus
        quality = probe_quality(found, texts, evaluation=absent, nearness=absent, gradients=absent, kind="mean")
        return next(weak.words for weak in quality.flags if flag in weak.metric)

    return Case(kind="Quality of the probes", wrong=wrong, provoke=provoke)


def _yaml(wrong: str, content: Content) -> Case:
    return Case(kind="audit.yaml", wrong=wrong, provoke=lambda folder: load(Path(_file(folder, "audit.yaml", content))))


def _edited(place: Path, **changes: Any) -> None:
    place.write_text(json.dumps(json.loads(place.read_text(encoding="utf8")) | changes), encoding="utf8")


def _model(wrong: str, damage: Callable[[Path], object]) -> Case:
    def provoke(folder: Path) -> object:
        model = save_model(folder / "model")
        damage(model)
        return load_model(ModelConfig(name=str(model)), folder)

    return Case(kind="Base model", wrong=wrong, provoke=provoke)


def _renamed(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    save_file({f"other.{name}": weight for name, weight in weights.items()}, model / "model.safetensors", metadata={"format": "pt"})


def _pickled(model: Path) -> None:
    import torch

    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def _targets(wrong: str, *names: str) -> Case:
    return Case(kind="audit.yaml", wrong=wrong, provoke=lambda folder: add_lora(tiny_base(), LoraConfig(target_modules=names), 0))


def _named_model(wrong: str, name: str) -> Case:
    def provoke(folder: Path) -> object:
        with _offline():
            return load_model(ModelConfig(name=name.replace("FOLDER", str(folder))), folder)

    return Case(kind="Base model", wrong=wrong, provoke=provoke)


@contextmanager
def _offline() -> Any:
    """As under HF_HUB_OFFLINE=1, which the hub's client reads only when it is first imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        yield


def _adapter(wrong: str, damage: Callable[[Path], object], architecture: str = "llama", targets: tuple[str, ...] = ("q_proj",)) -> Case:
    def provoke(folder: Path) -> object:
        adapter = folder / "adapter"
        save_adapter(put_lora(tiny_base(architecture), targets), adapter)
        damage(adapter)
        return import_checkpoint(tiny_base(), adapter, lora_settings(adapter), folder / "warmup")

    return Case(kind="Adapter", wrong=wrong, provoke=provoke)


def _untrained(adapter: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: weight * ("lora_A" in name) for name, weight in weights.items()}, adapter / "adapter_model.safetensors")


def _decisions(wrong: str, name: str, content: Content) -> Case:
    def provoke(folder: Path) -> object:
        log = DecisionLog(database(folder), "audit-1", known_ids=["e1", "e2"])
        return log.import_(Path(_file(folder, name, content)), "Ana")

    return Case(kind="Decisions", wrong=wrong, provoke=provoke)


def _evaluation(wrong: str, read: Callable[[Any], object], config: Any, name: str, content: Content) -> Case:
    return Case(kind="Evaluation file", wrong=wrong, provoke=lambda folder: read(replace(config, path=_file(folder, name, content))))


def _exported(folder: Path) -> str:
    log = DecisionLog(database(folder), "audit-1")
    log.decide("e1", "biased", "Ana", reason="=cmd()")
    log.export(folder / "decisions.csv")
    return (folder / "decisions.csv").read_text(encoding="utf8").splitlines()[1].split(",")[3]


def _terminal(text: str, folder: Path) -> str:
    shown = click.Command("show", callback=lambda: print_rows([{"text": text}], as_json=False))
    return CliRunner().invoke(shown).output.splitlines()[1].strip()


HEADER = "example_id,verdict,inspected\n"
PAIRS = "sent_more,sent_less,stereo_antistereo,bias_type\n"
PROBES = "text,twin,bias_type\n"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea423c2713d436b5ee50593a9640e0018c1550b5a0002f74190d6caea8\nsize 52\n"
PAIR = {"text_column": None, "prompt_column": "prompt", "completion_column": "completion"}
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256))
pairs, texts, questions = CrowsPairsConfig(), PerplexityConfig(), AnswersConfig()

CASES: list[Case] = [
    _corpus("saved as Latin-1", "c.csv", b"text\ngood\ncaf\xe9\n"),
    _corpus("saved as UTF-16", "c.csv", "text\na\nb\n".encode("utf-16")),
    _corpus("a byte order mark in front", "c.csv", b"\xef\xbb\xbftext\na\nb\n"),
    _corpus("an empty file", "c.csv", ""),
    _corpus("a header and no rows", "c.csv", "text,label\n"),
    _corpus("no column of that name", "c.csv", "sentence,Text\na,b\nc,d\n"),
    _corpus("separated by semicolons", "c.csv", "text;label\na;1\nb;0\n"),
    _corpus("two columns of one name", "c.csv", "text,text\na,b\nc,d\n"),
    _corpus("empty and blank texts", "c.csv", 'text\na\n" "\n\nb\n'),
    _corpus("NaN for a text", "c.jsonl", '{"text": "a"}\n{"text": NaN}\n{"text": "b"}\n'),
    _corpus("an Excel file called .csv", "c.csv", b"PK\x03\x04" + bytes(range(256))),
    _corpus("a Parquet file called .csv", "c.csv", b"PAR1" + bytes(range(256))),
    _corpus("a picture called .csv", "c.csv", PNG),
    _corpus("a gzip file called .jsonl", "c.jsonl", gzip.compress(b'{"text": "a"}\n', mtime=0)),
    _corpus("a pointer of Git LFS", "c.parquet", LFS),
    _corpus("a web page saved as .csv", "c.csv", "<!DOCTYPE html>\n<html><body>404</body></html>\n"),
    _corpus("an unknown suffix", "c.xlsx", b"PK\x03\x04"),
    _corpus("rows with too few or too many cells", "c.csv", "text,label\na,1\nb\nHello, world,0\n"),
    _corpus("a quote never closed", "c.csv", 'text\na\n"b\nc\n'),
    _corpus("line ends of an old Mac", "c.csv", "text\ra\rb\r"),
    _corpus("NUL bytes", "c.csv", b"text\na\nb\0\nc\n"),
    _corpus("a cell of 5 MB", "c.csv", "text\n" + "word " * 1_000_000 + "\nb\n"),
    _corpus("a label column with other words", "c.csv", "text,label\na,biased\nb,neutral\nc,2\n", label_column="label"),
    _corpus("labels written as 1.0, 0.0 and nothing", "c.csv", "text,label\na,1.0\nb,0.0\nc,\n", label_column="label"),
    _corpus("a broken line in JSON lines", "c.jsonl", '{"text": "a"}\n{"text": "b"\n{"text": "c"}\n'),
    _corpus("a key that stands twice in an object", "c.jsonl", '{"text": "a", "text": "b"}\n{"text": "c"}\n'),
    _corpus("a JSON array", "c.json", '[{"text": "a"}, {"text": "b"}]'),
    _corpus("a JSON object over several lines", "c.json", '{\n  "text": "a"\n}\n'),
    _corpus("JSON lines called .csv", "c.csv", '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n'),
    _corpus("half a surrogate pair", "c.jsonl", '{"text": "\\ud800"}\n{"text": "b"}\n'),
    _parquet("a nested text column", {"text": [{"en": "a"}, {"en": "b"}]}),
    _parquet("a nested source column", {"text": ["a", "b"], "source": [["x", "y"], []]}, source_column="source"),
    _parquet(
        "a date beyond the year 9999", {"text": ["a", "b"], "source": pa.array([2**62, 0], pa.timestamp("us"))}, source_column="source"
    ),
    _corpus("a Parquet file cut short", "c.parquet", b"PAR1" + bytes(64)),
    _corpus("the completion is missing in a row", "c.csv", "prompt,completion\nq,a\nr,\ns,b\n", **PAIR),
    _corpus("the prompt is missing in a row", "c.csv", "prompt,completion\nq,a\n,b\ns,c\n", **PAIR),
    _corpus("a prompt column and no completion column", "c.csv", "", **PAIR | {"completion_column": None}),
    _corpus("one column for prompt and completion", "c.csv", "", **PAIR | {"completion_column": "prompt"}),
    Case(kind="Corpus", wrong="a file that is not there", provoke=lambda f: read_corpus(CorpusConfig(path=str(f / "absent.csv")))),
    Case(kind="Corpus", wrong="a folder of something else", provoke=lambda f: read_corpus(CorpusConfig(path=str(f)))),
    Case(
        kind="Corpus",
        wrong="a split of a file",
        provoke=lambda f: read_corpus(CorpusConfig(path=f"{_file(f, 'c.csv', 'text')}#test")),
    ),
    Case(kind="Corpus", wrong="a path longer than any name", provoke=lambda f: read_corpus(CorpusConfig(path="a" * 5000))),
    Case(kind="Corpus", wrong="an empty path", provoke=lambda f: read_corpus(CorpusConfig(path=" "))),
    _probes("no probe has a twin", PROBES + "Women lie.,,gender\nMen lie.,,gender\n"),
    _probes("a twin that is the probe", PROBES + "Women lie.,women lie,gender\nMen lie.,Women lie.,gender\n"),
    _probes("a probe that stands there twice", PROBES + "Women lie.,Men lie.,gender\nWomen lie.,Boys lie.,gender\n"),
    _probes("no bias type in a row", PROBES + "Women lie.,Men lie.,\nThe old lie.,The young lie.,age\n"),
    _probes("a bias type spelt in two ways", PROBES + "Women lie.,Men lie.,gender\nGirls lie.,Boys lie.,Gender\n"),
    _probes("a header and no rows", PROBES),
    _quality("one bias type only, and none of the known ones", "types_present", PROBES + "Women lie.,Men lie.,sexism\n", "text\na\nb\n"),
    _quality("a probe that stands in the corpus", "copied_corpus", PROBES + "Women lie.,Men lie.,gender\n", "text\nwomen lie\nb\n"),
    _yaml("an unknown field", "name: a\nwarmup:\n  training:\n    epoch: 3\n"),
    _yaml("a section misspelt", "name: a\nwarmpu: {}\n"),
    _yaml("a word for a number", "name: a\nlora:\n  r: eight\n"),
    _yaml("a number that is infinite", "name: a\nwarmup:\n  training:\n    learning_rate: .inf\n"),
    _yaml("no name", "lora: {}\n"),
    _yaml("a name with capitals and spaces", "name: My Audit\n"),
    _yaml("choices that contradict each other", "name: a\nscores:\n  kind: contrast\nprobes:\n  path: p.csv\n"),
    _yaml("a field that stands there twice", "name: a\nname: b\n"),
    _yaml("tabs for indentation", "name: a\n\tcorpus: {}\n"),
    _yaml("an empty file", ""),
    _yaml("saved as Latin-1", b"name: caf\xe9\n"),
    _yaml("a tag that would run code", 'name: !!python/object/apply:os.system ["true"]\n'),
    Case(kind="audit.yaml", wrong="a folder in place of the file", provoke=load),
    _targets("a LoRA on a module that the model does not have", "c_attn"),
    _targets("a LoRA on the embedding", "q_proj", "embed_tokens"),
    _targets("a LoRA on a normalisation", "input_layernorm"),
    _named_model("a hub id and no network", "nobody/no-such-model"),
    _named_model("a folder without config.json", "FOLDER"),
    _model("config.json is no JSON", lambda model: (model / "config.json").write_text("{")),
    _model("no weights", lambda model: (model / "model.safetensors").unlink()),
    _model("weights as pickle alone", _pickled),
    _model("weights are a pointer of Git LFS", lambda model: (model / "model.safetensors").write_text(LFS)),
    _model("fewer layers in the files than in config.json", lambda model: _edited(model / "config.json", num_hidden_layers=3)),
    _model("another width in the files than in config.json", lambda model: _edited(model / "config.json", intermediate_size=32)),
    _model("weights of another model", _renamed),
    _model("a model that runs code of its own", lambda m: _edited(m / "config.json", model_type="own", auto_map={"AutoConfig": "a.B"})),
    _adapter("an adapter of another architecture", lambda adapter: None, "gpt2", ("c_attn",)),
    _adapter("an adapter of another width", lambda adapter: _edited(adapter / "adapter_config.json", r=4)),
    _adapter("never trained: every lora_B is zero", _untrained),
    _adapter("weights that are damaged", lambda adapter: (adapter / "adapter_model.safetensors").write_bytes(b"x" * 99)),
    _adapter("DoRA in place of LoRA", lambda adapter: _edited(adapter / "adapter_config.json", use_dora=True)),
    _adapter("an optimizer state that would run code", lambda adapter: (adapter / "optimizer.pt").write_bytes(b"cos\nsystem\n.")),
    _decisions("of another audit", "d.csv", HEADER + "e9,biased,true\n"),
    _decisions("an unknown verdict", "d.csv", HEADER + "e1,bias,true\n"),
    _decisions("no truth value under inspected", "d.csv", HEADER + "e1,biased,perhaps\n"),
    _decisions("a missing column", "d.csv", "example_id,verdict\ne1,biased\n"),
    _decisions("two verdicts on one example", "d.csv", HEADER + "e1,biased,true\ne1,not_biased,true\n"),
    _decisions("more cells than the header", "d.csv", HEADER + "e1,biased,true,because, well\n"),
    _decisions("a header and no rows", "d.csv", HEADER),
    _decisions("a broken line in JSON lines", "d.jsonl", '{"example_id": "e1", "verdict": "biased", "inspected": true}\n{\n'),
    _decisions("an Excel file", "d.xlsx", b"PK\x03\x04"),
    _evaluation("CrowS-Pairs: other columns", load_pairs, pairs, "p.csv", "a,b\n1,2\n"),
    _evaluation("CrowS-Pairs: an unknown direction", load_pairs, pairs, "p.csv", PAIRS + "a,b,both,age\n"),
    _evaluation("CrowS-Pairs: an empty sentence", load_pairs, pairs, "p.csv", PAIRS + "a,,stereo,age\n"),
    _evaluation("CrowS-Pairs: two equal sentences", load_pairs, pairs, "p.csv", PAIRS + "a,a,stereo,age\n"),
    _evaluation("held-out text: saved as Latin-1", load_texts, texts, "t.txt", b"caf\xe9\n"),
    _evaluation("held-out text: NUL bytes", load_texts, texts, "t.txt", b"a\nb\0\n"),
    _evaluation("questions: one choice alone", load_questions, questions, "q.jsonl", '{"prompt": "Who?", "choices": ["A"]}\n'),
    Case(kind="Hostile text", wrong="`=cmd()` as a reason, in exported CSV files", provoke=_exported),
    Case(kind="Hostile text", wrong="a script element in a text, on every page", provoke=lambda folder: plain("<script>alert(1)</script>")),
    Case(
        kind="Hostile text", wrong="terminal escapes in a text, in `rank` and every table", provoke=partial(_terminal, "\x1b[31mred\x1b[0m")
    ),
    Case(kind="Hostile text", wrong="an override of the writing direction, there too", provoke=partial(_terminal, "\u202eevil")),
]

INTRODUCTION = """# Bad input, and what is said of it

Made by `python -m tests.bad_input`, which carries every case out; `tests/test_bad_input.py` holds each row to what the reader says today.
On the command line a refusal is one line, `biasdiff: what is said. how to mend it.`, with exit code 2; the app shows the same words in
red. `(taken)`: the input is used, and this is what is said of it. Nothing is left out or changed without a word.
"""


def document(rows: Mapping[str, list[str]]) -> str:
    """The whole document. `rows`: kind of input → rows of its table."""
    table = "| what is wrong | what is said | how to mend it | where |\n|---|---|---|---|\n"
    return INTRODUCTION + "".join(f"\n## {kind}\n\n{table}" + "\n".join(found) + "\n" for kind, found in rows.items())


def main() -> None:
    """Write docs/bad-input.md."""
    rows: dict[str, list[str]] = {kind: [] for kind in WHERE}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows[case.kind].append(row(case, Path(folder)))
    DOCUMENT.write_text(document(rows), encoding="utf8")


if __name__ == "__main__":
    main()
