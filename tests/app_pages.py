"""Pages of the app in Streamlit's test runner: opened on an audit, their buttons pressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from biasdiff_core.audit import Audit

ROOT = Path(__file__).resolve().parents[1]


def open_page(audit: Audit, page: str, auditor: str = "Ana", link: Mapping[str, str | list[str]] | None = None, **state: Any) -> AppTest:
    """`pages/<page>.py` on this audit. `link`: more of its address; `state`: entries of the session before the first run."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.query_params["audit"] = audit.folder.id
    app.session_state["auditor"] = auditor
    for name, value in state.items():
        app.session_state[name] = value
    app.run()
    app.switch_page(f"pages/{page}.py")
    for name, value in (link or {}).items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def keyed(widgets: Sequence[Any], key: str) -> Any:
    """The widget with this key, or whose key begins so: behind it stands which audit, example, auditor or file it is of."""
    found = [widget for widget in widgets if widget.key == key] or [w for w in widgets if str(w.key).startswith(f"{key}-")]
    assert len(found) == 1, (key, [widget.key for widget in widgets])
    return found[0]


def press(app: AppTest, key: str) -> AppTest:
    """The page after the button with this key was pressed (see `keyed`)."""
    keyed(app.button, key).click().run()
    assert not app.exception
    return app
