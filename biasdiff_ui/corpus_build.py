"""The form that builds a corpus or probing set from a recipe into the workspace, shows its card, and hands it to a new audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import streamlit as st

from biasdiff_core.corpus.card import Built, card_path, held_out_path, read_card
from biasdiff_core.corpus.catalogue import Source, chosen_source
from biasdiff_core.corpus.indicators import INDICATORS
from biasdiff_core.corpus.mixes import CUSTOM, Ratio, parse_ratio
from biasdiff_core.corpus.recipes import RECIPES, build, described
from biasdiff_core.corpus.sources import DEMO
from biasdiff_core.errors import BiasDiffError
from biasdiff_core.review.curation import CuratedSet
from biasdiff_core.workspace.artefacts import digest_json
from biasdiff_core.workspace.audits import default_workspace
from biasdiff_ui.data_source import KINDS_OF_TEXTS, TEXTS, choose_column, choose_source, columns_of, preset_path
from biasdiff_ui.notices import errors_shown, plain, show_error

FOLDER = "corpora"
BUILT = "recipe_built"
HOLD_OUT = "Neutral texts held out for evaluation"
HELD_HELP = (
    "They are drawn first and are in no row of the corpus: a file beside it, for the perplexity on held-out text, and for T-REx queries, "
    "which are only asked of sentences that were not trained on."
)


def build_corpus() -> None:
    """Draw the form; of the file built last in this session, its card and the way into a new audit."""
    with st.expander("Build a corpus or probing set from a recipe", expanded=BUILT in st.session_state):
        rows = dict(zip(RECIPES, described(), strict=True))
        name = st.selectbox("Recipe", list(rows), format_func=lambda one: rows[one]["recipe"], key="recipe")
        st.markdown(plain(f"{rows[name]['makes'].capitalize()}: {rows[name]['about']}."))
        if rows[name]["files"]:
            st.caption(plain(f"Made of {rows[name]['files']} in the folder $BIASDIFF_DATA; licences: {rows[name]['licences']}."))
        seed = int(st.number_input("Seed", min_value=0, step=1, key="recipe_seed"))
        with errors_shown():
            ratio = None if name in INDICATORS else _ratio(rows[name]["ratio"])
            held = 0 if name in INDICATORS else int(st.number_input(HOLD_OUT, min_value=0, step=50, key="recipe_hold_out", help=HELD_HELP))
            biased, neutral = (_source("biased", 1), _source("neutral", 0)) if name == CUSTOM else (None, None)
            if st.button("Build into the workspace", key="recipe_build", disabled=name == CUSTOM and None in (biased, neutral)):
                made = build(name, seed=seed, ratio=ratio, biased=biased, neutral=neutral, hold_out=held)
                st.session_state[BUILT] = str(store(made, made.card.recipe))
        if BUILT in st.session_state:
            with errors_shown():
                _built(Path(st.session_state[BUILT]))


def _ratio(default: str) -> Ratio | None:
    written = st.text_input(f"Biased to neutral rows (of the recipe: {default})", key="recipe_ratio", placeholder=default).strip()
    return parse_ratio(written) if written else None


def _source(side: str, label: int) -> Source | None:
    """A source of the recipe custom; None until one is chosen."""
    path = choose_source(f"{side} texts", f"recipe_{side}", KINDS_OF_TEXTS)
    if path is None:
        return None
    try:
        columns, _ = columns_of(path, "corpus.csv")
    except BiasDiffError as error:
        show_error(error)
        return None
    column = str(choose_column(f"Column of the {side} texts", columns, f"recipe_{side}_text", TEXTS))
    licence = "" if path == DEMO else st.text_input(f"Licence of the {side} texts (for the card)", key=f"recipe_{side}_licence").strip()
    return chosen_source(path, column, label, licence)


def store(built: Built | CuratedSet, name: str) -> Path:
    """The file in the workspace, named by its content, and by its card where the same content has another one already: what an audit was
    made from never changes under it."""
    target, card = default_workspace() / FOLDER / f"{name}-{built.card.digest[:12]}.csv", digest_json(built.card.to_json())
    if target.exists() and digest_json(json.loads(card_path(target).read_text(encoding="utf8"))) != card:
        target = target.with_name(f"{target.stem}-{card[:6]}.csv")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        card_path(target).unlink(missing_ok=True)  # of a build that was killed before its file was there
        built.write(target)
    return target


def _built(path: Path) -> None:
    card = read_card(path)
    st.text("\n".join(map(str, filter(Path.exists, (path, held_out_path(path))))))
    st.markdown("  \n".join(plain(line) for line in card.lines()))
    what: Literal["corpus", "probes"] = "probes" if card.recipe in INDICATORS else "corpus"
    if st.button(f"Use as the {what} of a new audit", key="recipe_use"):
        use_in_new_audit(what, path)


def use_in_new_audit(what: Literal["corpus", "probes"], path: Path) -> None:
    """Go to the form of a new audit, with this file in it."""
    preset_path(f"new_{what}", str(path))
    st.session_state["new_audit_open"] = True
    st.switch_page("pages/audits.py")
