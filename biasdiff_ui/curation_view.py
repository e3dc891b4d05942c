"""Curating a probing set: pair after pair with its differing words marked, accepted, edited or rejected by key; progress and result.

Plain buttons with keys, not the review card: an edit may be refused, so each press waits for its answer before the next pair is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.config import ProbeConfig
from biasdiff_core.config.generation import BIAS_TYPES
from biasdiff_core.config.presets import DEMO_PROBES
from biasdiff_core.corpus.card import card_path, card_text
from biasdiff_core.corpus.examples import Probe
from biasdiff_core.corpus.probes import DEMO_FILE
from biasdiff_core.corpus.sources import DEMO
from biasdiff_core.review.curation import STATES, CuratedPair, Curation, State, counts_by_type, kept_by_type, queue, read_pairs
from biasdiff_core.review.decisions import last_of
from biasdiff_core.workspace.audits import default_workspace
from biasdiff_core.workspace.database import database
from biasdiff_ui.corpus_build import store, use_in_new_audit
from biasdiff_ui.data_source import choose_probe_columns, choose_source, columns_of, stamp
from biasdiff_ui.decide import attempt, name_is_known, show_outcome
from biasdiff_ui.format import count, moment
from biasdiff_ui.notices import errors_shown, plain
from biasdiff_ui.state import auditor
from biasdiff_ui.why import word_difference

# R and C belong to Streamlit; S and Z are those of the review card.
ACCEPT, EDIT, REJECT, SKIP, UNDO = "a", "e", "x", "s", "z"
SKIPPED, EDITING, RETURNED = "curate_skipped", "curate_editing", "curate_returned"
OWN, OTHER = "The probes of this audit", "Other probes"
EVERY = "all bias types"


def curation(audit: Audit | None) -> None:
    """Choose a probing set and curate it."""
    with errors_shown():
        config = _chosen(audit)
        if config is not None:
            found = _curation(str(default_workspace()), config, stamp(config.path))
            source = found.source
            st.caption(plain(f"{source.path}: {count(len(source.pairs), 'pair')}, SHA-256 {source.digest}. {' '.join(source.notes)}"))
            if name_is_known():
                _curating(found)


def _chosen(audit: Audit | None) -> ProbeConfig | None:
    """Which probing set, and which of its columns; None until one is chosen."""
    if audit is not None and st.segmented_control("Probing set", [OWN, OTHER], default=OWN, key="curate_which", required=True) == OWN:
        return audit.config.probes
    path = choose_source("probes", "curate", "Pairs to curate: CSV, TSV, JSONL or Parquet.")
    if path is None:
        return None
    columns, _ = columns_of(path, DEMO_FILE)
    return DEMO_PROBES if path == DEMO else choose_probe_columns(path, columns, "curate")


@st.cache_resource(max_entries=8, show_spinner="Reading the pairs")
def _curation(workspace: str, config: ProbeConfig, stamp_key: str) -> Curation:
    return Curation(database(Path(workspace)), read_pairs(config))


@st.fragment
def _curating(found: Curation) -> None:
    """Progress, the pair and what can be done with it; only this part is drawn again after a press.

    The buttons are drawn before what stands above them: no key may still act on the pair before when the next one is read already.
    """
    pairs = found.pairs()
    every = list(pairs.values())
    progress, choice, seen, acts, below = (st.container() for _ in range(5))
    with choice, st.container(horizontal=True, vertical_alignment="bottom"):
        state: State = st.selectbox("Pairs", STATES, key="curate_state", on_change=_show_again, width=200)
        kinds = [EVERY, *counts_by_type(every)]
        kind = st.selectbox("Bias type", kinds, key="curate_kind", on_change=_show_again, width=240)
    waiting = queue(every, state, None if kind == EVERY else kind)
    editing = pairs.get(st.session_state.get(EDITING, ""))
    shown = editing or _next(waiting)
    with acts:
        show_outcome(found.log.audit_id)  # here, where the eyes are: a refused edit is mended in the form below
        if editing:
            _edit_form(found, editing.pair)
        else:
            with st.container(horizontal=True, gap="small"):
                if shown is not None:
                    _verdicts(found, shown)
                _undo_button(found)
    progress.markdown(plain(progress_words(every)))
    with seen:
        st.caption(f"{count(len(waiting), 'pair')} {state}")
        if shown is None:
            _nothing_left(len(waiting), state)
        else:
            _draw(shown, found.source.origins[shown.source.id])
    with below:
        _by_type(every)
        _result(found)


def progress_words(pairs: list[CuratedPair]) -> str:
    """`187 of 450 pairs accepted, 12 of them edited; 20 rejected, 243 undecided. Accepted least: age, 4 of 50.`"""
    counts, kept = counts_by_type(pairs), kept_by_type(pairs)
    totals = {state: sum(states[state] for states in counts.values()) for state in STATES}
    least = min(kept, key=kept.__getitem__)
    accepted = totals["accepted"] + totals["edited"]
    return (
        f"{accepted:,} of {count(len(pairs), 'pair')} accepted, {totals['edited']:,} of them edited; {totals['rejected']:,} rejected, "
        f"{totals['undecided']:,} undecided. Accepted least: {least}, {kept[least]} of {sum(counts[least].values())}."
    )


def _next(waiting: list[CuratedPair]) -> CuratedPair | None:
    """The first that was not skipped; before it, the one that an undo has brought back."""
    skipped = st.session_state.setdefault(SKIPPED, set())
    left = [curated for curated in waiting if curated.source.id not in skipped]
    returned = (curated for curated in left if curated.source.id == st.session_state.get(RETURNED))
    return next(returned, left[0] if left else None)


def _nothing_left(skipped: int, state: str) -> None:
    if skipped:
        st.info(f"All {state} pairs of this choice were passed over.")
        st.button("Show them again", key="curate_again", on_click=_show_again)
    else:
        st.info(f"No {state} pair is left in this choice.")


def _show_again() -> None:
    st.session_state[SKIPPED] = set()


def _draw(curated: CuratedPair, origin: dict[str, str]) -> None:
    """Both texts side by side, the words in which they differ marked; bias type, origin, and what was decided."""
    pair = curated.pair
    sides = (("Stereotype", pair.text, pair.twin or pair.text), ("Anti-stereotype twin", pair.twin or "", pair.text))
    for box, (title, text, other) in zip(st.columns(2), sides, strict=True):
        with box.container(border=True, height="stretch"):
            st.caption(title)
            st.markdown(marked(text, other) if text else "There is none.")
    facts = [pair.bias_type, *(f"{name}: {cell}" for name, cell in origin.items() if cell)]
    st.caption(plain(" · ".join(facts)))
    if curated.decision is not None:
        st.caption(plain(f"{curated.state} by {curated.decision.auditor}, {moment(curated.decision.created)}"))
    if curated.edit is not None:
        st.caption(plain(f"Edited by {curated.edit.auditor}, {moment(curated.edit.created)}. In the source ({curated.source.bias_type}):"))
        st.text(f"{curated.source.text}\n{curated.source.twin or ''}")


def marked(text: str, other: str) -> str:
    """`text` as inert Markdown, those of its words marked that do not stand in `other` in the same order."""
    parts = []
    for piece, shared in word_difference(other, text):
        words = plain(piece)
        parts.append(words if shared or not words else f":orange-background[**{words}**]")
        parts.append(" " if piece[-1:].isspace() else "")
    return "".join(parts)


def _verdicts(found: Curation, shown: CuratedPair) -> None:
    """Buttons bound to the pair that is shown, whatever is shown by the time one is pressed."""
    pair = shown.pair
    _key_button("Accept", ACCEPT, pair.id, _decide, found.accept, pair, disabled=shown.kept)
    _key_button("Edit …", EDIT, pair.id, _start_edit, pair.id)
    _key_button("Reject", REJECT, pair.id, _decide, found.reject, pair, disabled=shown.state == "rejected")
    _key_button("Skip", SKIP, pair.id, _skip, pair.id)


def _key_button(label: str, key: str, of: str, act: Callable[..., None], *arguments: object, disabled: bool = False) -> None:
    st.button(label, key=f"curate_{key}-{of}", shortcut=key, on_click=act, args=arguments, disabled=disabled)


def _decide(decide: Callable[[Probe, str], object], pair: Probe) -> None:
    """Record a verdict (callback)."""

    def act() -> str:
        decide(pair, auditor())
        return ""

    attempt(act)


def _skip(id_: str) -> None:
    st.session_state[SKIPPED].add(id_)


def _start_edit(id_: str) -> None:
    st.session_state[EDITING] = id_


def _stop_edit() -> None:
    st.session_state.pop(EDITING, None)


def _edit_form(found: Curation, pair: Probe) -> None:
    """The pair as it is to be; refused edits stay in the form."""
    with st.form(f"curate_form_{pair.id}"):
        for box, label, name in zip(st.columns(2), ("Stereotype", "Anti-stereotype twin"), ("text", "twin"), strict=True):
            box.text_area(label, getattr(pair, name) or "", key=_field(pair, name))
        known = BIAS_TYPES.index(pair.bias_type) if pair.bias_type in BIAS_TYPES else None
        st.selectbox("Bias type", BIAS_TYPES, known, key=_field(pair, "bias_type"), width=240)
        with st.container(horizontal=True):
            st.form_submit_button("Save and accept", key="curate_save", shortcut="Ctrl+Enter", on_click=_save, args=(found, pair))
            st.form_submit_button("Cancel", key="curate_cancel", on_click=_stop_edit)


def _field(pair: Probe, name: str) -> str:
    return f"curate_{name}_{pair.id}"


def _save(found: Curation, pair: Probe) -> None:
    text, twin, bias_type = (st.session_state[_field(pair, name)] or "" for name in ("text", "twin", "bias_type"))

    def act() -> str:
        found.edit(pair, text, twin, bias_type, auditor())
        _stop_edit()
        return "Edited and accepted."

    attempt(act)


def _undo_button(found: Curation) -> None:
    """Take back this auditor's last decision; its pair is shown next."""
    last = last_of(found.log.actions(), auditor())
    _key_button(f"Undo action {last.number}" if last else "Nothing to undo", UNDO, "last", _undo, found, disabled=last is None)


def _undo(found: Curation) -> None:
    def act() -> str:
        id_ = found.undo(auditor())
        st.session_state[RETURNED] = id_
        st.session_state[SKIPPED].discard(id_)
        return "Undone."

    attempt(act)


def _by_type(pairs: list[CuratedPair]) -> None:
    """A row a bias type: its pairs by state, and how many of them are accepted."""
    kept = kept_by_type(pairs)
    rows = [
        {"bias type": kind, "share accepted": kept[kind] / sum(states.values()), **states} for kind, states in counts_by_type(pairs).items()
    ]
    config = {"share accepted": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1)}
    st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=config, height="content", alt="Pairs by bias type and state")


def _result(found: Curation) -> None:
    """The accepted pairs as a file with its card. Made only while it is open."""
    panel = st.expander("The curated set", key="curate_result", on_change="rerun")
    with panel, errors_shown():
        if panel.open:
            result = found.result()
            st.markdown("  \n".join(plain(line) for line in result.card.lines()))
            name = Path(f"{Path(found.source.path).stem}-curated-{result.card.digest[:12]}.csv")
            card = card_text(result.card.to_json())
            with st.container(horizontal=True):
                st.download_button("Curated set (CSV)", result.content, name.name, on_click="ignore", key="curate_csv")
                st.download_button("Its card (JSON)", card, card_path(name).name, on_click="ignore", key="curate_card")
                if st.button("Use as the probes of a new audit", key="curate_use"):
                    use_in_new_audit("probes", store(result, "curated"))
