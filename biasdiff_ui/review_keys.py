"""The keys of the review card: what each does, an auditor's own choice of them, and the panel that changes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import streamlit as st

from biasdiff_core.errors import ReviewError
from biasdiff_core.workspace.database import Database
from biasdiff_core.workspace.preferences import prefer, preference
from biasdiff_ui.decide import attempt
from biasdiff_ui.state import auditor
from biasdiff_ui.verdicts import KEYS, REASONS, VERDICTS, WORDS

PREFERENCE = "review-keys"
SWITCH = "on"
USUAL: Mapping[str, str] = {
    **KEYS,
    "skip": "s",
    "back": "z",
    "similar": "m",
    "shade": "t",
    **{reason: str(number) for number, reason in enumerate(REASONS, start=1)},
}
DOES: Mapping[str, str] = {
    **{verdict: WORDS[verdict] for verdict in VERDICTS},
    "skip": "skip",
    "back": "back, undo",
    "similar": "similar to this",
    "shade": "shade by token",
    **{reason: f"reason: {reason}" for reason in REASONS},
}
TAKEN = {"c": "clears the app's cache", "r": "runs the page again"}  # by Streamlit itself, on every page


@dataclass(frozen=True, kw_only=True)
class Keys:
    """`on`: whether keys act at all; `of`: the key of each act of `DOES`."""

    on: bool = True
    of: Mapping[str, str] = field(default_factory=lambda: dict(USUAL))


def checked(keys: Mapping[str, str]) -> dict[str, str]:
    """The keys in small letters. Raises ReviewError for one that cannot be pressed, or that would do two things."""
    found: dict[str, str] = {}
    for act, key in keys.items():
        small = key.strip().lower()
        if len(small) != 1 or not small.isprintable():
            raise ReviewError(f"“{DOES[act]}” has no key.", "Give it one letter, digit or sign, or turn all keys off.")
        if small in TAKEN:
            raise ReviewError(f"The key {small.upper()} is not free: it {TAKEN[small]}.", f"Give “{DOES[act]}” another.")
        if small in found.values():
            other = next(name for name, taken in found.items() if taken == small)
            raise ReviewError(f"“{DOES[other]}” and “{DOES[act]}” are both on the key {small.upper()}.", "Give each a key of its own.")
        found[act] = small
    return found


def keys_of(db: Database, name: str) -> Keys:
    """The keys as this auditor has set them."""
    kept = preference(db, name, PREFERENCE)
    return Keys(on=kept["on"], of={**USUAL, **kept["of"]}) if kept else Keys()


def keys_panel(db: Database, keys: Keys) -> None:
    """The cheat-sheet, which is also where keys are changed and turned off."""
    state = "" if keys.on else " (off)"
    panel = st.expander(f"Keys{state}", key="keys", on_change="rerun")
    if not panel.open:
        return
    with panel:
        st.caption(
            "What each key does while nobody types in a box; Backspace goes back too. A reason is chosen before its verdict; its key again "
            "takes it away. Change a key by typing another one. "
            "The keys are kept for you, by your name."
        )
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            for act, words in DOES.items():
                st.text_input(words.capitalize(), keys.of[act], max_chars=1, key=_field(act), width=150)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.toggle("Keys act", keys.on, key=_field(SWITCH))
            st.button("Keep these keys", key="keys-keep", on_click=_keep, args=(db,))
            st.button("Back to the usual keys", key="keys-usual", on_click=_usual, args=(db,))


def _field(of: str) -> str:
    """Key of the field of an act, or of the switch: each auditor's own, whose keys it shows."""
    return f"key-{of}-{auditor()}"


def _keep(db: Database) -> None:
    def act() -> str:
        chosen = checked({name: str(st.session_state[_field(name)]) for name in DOES})
        prefer(db, auditor(), PREFERENCE, asdict(Keys(on=st.session_state[_field(SWITCH)], of=chosen)))
        return "The keys are kept."

    attempt(act)


def _usual(db: Database) -> None:
    prefer(db, auditor(), PREFERENCE, asdict(Keys()))
    st.session_state.update({_field(act): key for act, key in USUAL.items()} | {_field(SWITCH): True})
