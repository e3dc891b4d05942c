"""How the app bears a large audit: start, paint, filter, map and lasso, bytes, memory, and the keys of Review.

python -m benchmarks.app                  an audit of 100,000 and one of 200,000 examples, drawn at random (benchmarks.large_audit)

Each time is what a person waits for in Chromium, from the click or key to the last pixel; beside it stand the server's own share (from
the message that asks to the last one that answers) and the same on a plain page of `st.dataframe` and a Plotly chart of the same data.
Every round starts both servers anew and takes turns; the figures are medians over the rounds, low and high their extremes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import click
import pandas as pd
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from benchmarks.large_audit import large_audit
from benchmarks.record import dry_option, record
from benchmarks.served import chromium, served
from biasdiff_core.audit import Audit

PATIENCE = 600_000  # milliseconds
LOOK_EVERY, QUIET = 25, 500  # milliseconds: looks at the pixels of a chart, and without a change of any: then it is drawn
WORD = "women"
AUDITOR = "Benchmark"
SINGLE_PRESSES, FAST_PRESSES = 21, 200
ROUNDS = 5
MAP, PLAIN_MAP = "[data-testid=stEChartsChart] canvas", ".js-plotly-plot canvas"
BOX_TOOL = (52, 18)  # where the second tool of the map's toolbox lies

# Notes when the page asks its server for something, and when how many bytes come back.
TRAFFIC = """
window.asked = []; window.came = [];
const Plain = window.WebSocket;
window.WebSocket = class extends Plain {
  constructor(...given) {
    super(...given);
    this.addEventListener('message', (e) => window.came.push([performance.now(), e.data.byteLength ?? e.data.size ?? e.data.length]));
  }
  send(data) { window.asked.push(performance.now()); super.send(data); }
};
"""
IDLE = "document.querySelector('.stApp')?.dataset.testScriptState === 'notRunning'"
# When the canvases of a chart changed for the last time, once the script has ended and they have been quiet.
DRAWN = (
    """async ([selector, every, quiet]) => {
  const small = new OffscreenCanvas(64, 64).getContext('2d', {willReadFrequently: true});
  let before = '', changed = performance.now();
  for (;;) {
    small.clearRect(0, 0, 64, 64);
    const canvases = document.querySelectorAll(selector);
    for (const canvas of canvases) if (canvas.width && canvas.height) small.drawImage(canvas, 0, 0, 64, 64);
    const now = small.getImageData(0, 0, 64, 64).data.join();
    if (now !== before) { before = now; changed = performance.now(); }
    if (canvases.length && """
    + IDLE
    + """ && performance.now() - changed > quiet) return changed;
    await new Promise((go) => setTimeout(go, every));
  }
}"""
)
# When a text stands on the page and the script has ended.
SAID = (
    """async ([pattern]) => {
  while (!(new RegExp(pattern).test(document.querySelector('.stMain').innerText) && """
    + IDLE
    + """)) await new Promise(requestAnimationFrame);
  return performance.now();
}"""
)
# Of each key, when it went down and when the card showed the next example.
CARD = """(card) => {
  window.pressed = []; window.next = [];
  let shown = card.dataset.example;
  window.addEventListener('keydown', () => window.pressed.push(performance.now()), true);
  new MutationObserver(() => {
    if (card.dataset.example === shown) return;
    shown = card.dataset.example;
    window.next.push(performance.now());
  }).observe(card, {attributes: true, attributeFilter: ['data-example']});
}"""

PLAIN_PAGE = """
import pandas as pd, plotly.express as px, streamlit as st
st.set_page_config(layout="wide")
if not st.checkbox("Show"):
    st.stop()
rows = st.query_params["rows"]
table = st.cache_resource(pd.read_parquet)(f"{FOLDER}/{rows}.parquet")
find, colour = st.text_input("Text contains"), st.radio("Colour by", ["source", "group"])
shown = table[table["text"].str.contains(find, case=False, regex=False)] if find else table
chart = px.scatter(shown, x="x", y="y", color=colour, render_mode="webgl").update_layout(dragmode="select", showlegend=False)
event = st.plotly_chart(chart, key="map", on_select="rerun")
st.markdown(f"{len(event.selection.points):,} of {len(shown):,} selected")
st.dataframe(shown)
"""


@dataclass(frozen=True, kw_only=True)
class Span:
    """What one act took: `seconds` until a person saw the whole of it, `server` of these, `received` bytes."""

    seconds: float
    server: float
    received: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of a benchmark, as `record` takes it."""

    metric: str
    value: float
    n: int
    unit: str
    low: float | None = None
    high: float | None = None


class Watched:
    """A page whose waits are measured in the page itself."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE)
        page.add_init_script(TRAFFIC)

    def drawn(self, selector: str) -> float:
        """The page's time at which the chart was whole."""
        return float(self.page.evaluate(DRAWN, [selector, LOOK_EVERY, QUIET]))

    def said(self, pattern: str) -> float:
        """The page's time at which a text stood there."""
        return float(self.page.evaluate(SAID, [pattern]))

    def span(self, act: Callable[[], object], done: Callable[[], float]) -> Span:
        """What it took from `act` to `done`."""
        start = float(self.page.evaluate("performance.now()"))
        act()
        end = done()
        asked = [at for at in self.page.evaluate("window.asked") if at >= start]
        came = [(at, size) for at, size in self.page.evaluate("window.came") if at >= start]
        server = max(at for at, _ in came) - min(asked)
        return Span(seconds=(end - start) / 1e3, server=server / 1e3, received=sum(size for _, size in came))

    def box(self, chart: Locator) -> Callable[[], object]:
        """Draw a box over the left half of the chart, up to letting the button go, which is the act that is left."""
        place = chart.bounding_box()
        assert place is not None
        self.page.mouse.move(place["x"] + 120, place["y"] + 120)
        self.page.mouse.down()
        self.page.mouse.move(place["x"] + place["width"] * 0.55, place["y"] + place["height"] - 40, steps=8)
        return self.page.mouse.up


def app_spans(watched: Watched, url: str, small: Audit, large: Audit) -> Iterator[tuple[str, Span]]:
    """The acts on Explore, on a server that has not read either audit."""
    page, rows, more = watched.page, _rows(small), _rows(large)
    page.goto(f"{url}/?audit={small.folder.id}")
    page.get_by_role("button", name="Understood").click()
    watched.said("Audits")
    link = page.get_by_test_id("stSidebar").get_by_role("link", name="Explore")
    yield f"explore_{_short(rows)}_first_paint", watched.span(link.click, lambda: watched.drawn(MAP))
    yield f"filter_{_short(rows)}", _filtered(watched, _holding(small), rows)
    page.goto(f"{url}/explore?audit={large.folder.id}")
    watched.drawn(MAP)
    colour = page.get_by_test_id("stMain").get_by_role("radio", name="decision")
    yield f"map_{_short(more)}_paint", watched.span(colour.click, lambda: watched.drawn(MAP))
    chart = page.locator(MAP).first
    place = chart.bounding_box()
    assert place is not None
    page.mouse.click(place["x"] + BOX_TOOL[0], place["y"] + BOX_TOOL[1])
    yield f"lasso_{_short(more)}", watched.span(watched.box(chart), lambda: watched.said("selected by the lasso"))


def plain_spans(watched: Watched, url: str, small: Audit, large: Audit) -> Iterator[tuple[str, Span]]:
    """The same acts on the plain page."""
    page, rows, more = watched.page, _rows(small), _rows(large)

    def shown(count: int) -> Span:
        page.goto(f"{url}/?rows={count}")
        return watched.span(page.get_by_text("Show", exact=True).click, lambda: watched.drawn(PLAIN_MAP))

    yield f"explore_{_short(rows)}_first_paint", shown(rows)
    yield f"filter_{_short(rows)}", _filtered(watched, _holding(small), None)
    shown(more)
    colour = page.get_by_test_id("stRadio").get_by_text("group", exact=True)
    yield f"map_{_short(more)}_paint", watched.span(colour.click, lambda: watched.drawn(PLAIN_MAP))
    yield f"lasso_{_short(more)}", watched.span(watched.box(page.locator(PLAIN_MAP).first), lambda: watched.said(r"[1-9][\d,]* of"))


def _filtered(watched: Watched, found: int, rows: int | None) -> Span:
    """A word in the text filter, until the right count stands there."""
    box = watched.page.get_by_role("textbox", name="Text contains")
    box.fill(WORD)
    said = f"{found:,} of {rows:,}" if rows else f"0 of {found:,}"
    return watched.span(lambda: box.press("Enter"), lambda: watched.said(said))


def _rows(audit: Audit) -> int:
    return int(audit.artefact("ranking").facts["ranked"])


def _short(rows: int) -> str:
    return f"{rows / 1000:g}k"


def _holding(audit: Audit) -> int:
    texts = pd.read_parquet(audit.artefact("corpus").path("corpus.parquet"), columns=["text"])["text"]
    return int(texts.str.contains(WORD, case=False, regex=False).sum())


def key_rows(watched: Watched, url: str, audit: Audit) -> Iterator[Row]:
    """Review: how soon a verdict shows the next example, and how many of many fast presses are recorded."""
    page = watched.page
    page.goto(f"{url}/review?audit={audit.folder.id}")
    name = page.get_by_role("textbox", name="Your name")
    name.fill(AUDITOR)
    name.press("Enter")
    card = page.get_by_label("Review card")
    card.wait_for()
    page.get_by_role("heading", name="Review").click()
    card.evaluate(CARD)
    for number in range(1, SINGLE_PRESSES + 1):
        page.keyboard.press("b")
        page.wait_for_function(f"window.next.length >= {number}")
    pressed, shown = page.evaluate("[window.pressed, window.next]")
    waits = [after - before for before, after in zip(pressed, shown, strict=True)]
    yield Row(metric="verdict_to_next_ms", value=median(waits), n=len(waits), unit="milliseconds from the key to the next card, median")
    _saved(page)
    before = _recorded(audit)
    for _ in range(FAST_PRESSES):
        page.keyboard.press("b")
    _saved(page)
    unit = f"decisions recorded of {FAST_PRESSES} presses without a pause"
    yield Row(metric="keys_recorded", value=_recorded(audit) - before, n=FAST_PRESSES, unit=unit)


def _saved(page: Page) -> None:
    expect(page.get_by_role("status").filter(has_text="all saved")).to_be_visible(timeout=PATIENCE)


def _recorded(audit: Audit) -> int:
    return sum(link["count"] for link in audit.log.links() if link["auditor"] == AUDITOR)


def plain_page(folder: Path, *audits: Audit) -> Path:
    """The script of the plain page and its data."""
    for audit in audits:
        ranking, points = audit.ranking(), pd.read_parquet(audit.artefact("map2d").path("map2d.parquet"))
        columns = ["rank", "id", "score", "text", "source", "group", "x", "y"]
        ranking.merge(points, on="id")[columns].to_parquet(folder / f"{len(ranking)}.parquet")
    script = folder / "plain.py"
    script.write_text(f"FOLDER = {json.dumps(str(folder))}\n{PLAIN_PAGE}", encoding="utf8")
    return script


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one start of both servers gave: spans by act, of the app and of the plain page, and the other rows."""

    app: dict[str, Span]
    plain: dict[str, Span]
    rows: list[Row]


def opened(browser: Browser) -> Watched:
    """A new page of the browser."""
    return Watched(browser.new_page(viewport={"width": 1280, "height": 2400}))


def one_round(workspace: Path, folder: Path, small: Audit, large: Audit, *, last: bool) -> Round:
    """Both servers started, looked at and ended; in the last round the keys of Review as well."""
    rows: list[Row] = []
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        with served(workspace) as server:
            rows.append(Row(metric="start_seconds", value=server.start_seconds, n=1, unit="seconds from the command to the first answer"))
            watched = opened(browser)
            app = dict(app_spans(watched, server.url, small, large))
            rows.append(Row(metric="server_rss_gb", value=server.gigabytes(), n=1, unit="GB resident, after both audits were looked at"))
            if last:
                rows += key_rows(watched, server.url, small)
            watched.page.close()  # it would go on asking for its server beside the plain page
        with served(workspace, plain_page(folder, small, large)) as server:
            watched = opened(browser)
            plain = dict(plain_spans(watched, server.url, small, large))
            rows.append(Row(metric="server_rss_gb.plain", value=server.gigabytes(), n=1, unit="GB resident, plain page"))
        browser.close()
    return Round(app=app, plain=plain, rows=rows)


def measured(workspace: Path, folder: Path, small: Audit, large: Audit) -> Iterator[Row]:
    """All rows of all rounds, those of one name under each other."""
    rounds = [one_round(workspace, folder, small, large, last=number == ROUNDS) for number in range(1, ROUNDS + 1)]
    for each in rounds:
        yield from each.rows
        for metric, span in each.app.items():
            yield from _compared(metric, span, each.plain[metric])


def in_one(rows: Sequence[Row]) -> Row:
    """Rows of one name as one: median and extremes over the rounds, or the only one."""
    values = [row.value for row in rows]
    if len(rows) == 1:
        return rows[0]
    return replace(rows[0], value=median(values), low=min(values), high=max(values), n=len(rows), unit=f"{rows[0].unit}, median of rounds")


def _compared(metric: str, span: Span, plain: Span) -> Iterator[Row]:
    for name, value, unit in (
        (f"{metric}_seconds", span.seconds, "seconds until it is drawn"),
        (f"{metric}_seconds.server", span.server, "seconds of it from asking to the server's last answer"),
        (f"{metric}_seconds.plain", plain.seconds, "seconds, st.dataframe and Plotly"),
        (f"{metric}_seconds.ratio", plain.seconds / span.seconds, "times as fast as st.dataframe and Plotly"),
        (f"{metric}_bytes", span.received, "bytes that the server's answer has"),
        (f"{metric}_bytes.plain", plain.received, "bytes, st.dataframe and Plotly"),
    ):
        yield Row(metric=name, value=value, n=1, unit=unit)


@click.command()
@click.option("--rows", type=click.IntRange(min=1000), default=100_000, show_default=True, help="Of the smaller audit; the other: twice.")
@click.option("--workspace", type=click.Path(path_type=Path), help="Where the audits are, or are made. Default: a temporary one.")
@dry_option
def main(rows: int, workspace: Path | None, dry: bool) -> None:
    """Record how the app bears audits of ROWS and twice as many examples."""
    with tempfile.TemporaryDirectory(prefix="biasdiff-app-") as scratch:
        folder = (workspace or Path(scratch) / "workspace").resolve()
        small, large = (large_audit(folder, count) for count in (rows, 2 * rows))
        named: dict[str, list[Row]] = {}
        for row in measured(folder, Path(scratch), small, large):
            named.setdefault(row.metric, []).append(row)
        for metric, repeated in named.items():
            row = in_one(repeated)
            low, high = (None if bound is None else round(bound, 3) for bound in (row.low, row.high))
            against = "st.dataframe and a Plotly chart of the same data"
            value = round(row.value, 3)
            record(f"app.{metric}", value, low=low, high=high, n=row.n, unit=row.unit, model="none", against=against, dry=dry)


if __name__ == "__main__":
    main()
