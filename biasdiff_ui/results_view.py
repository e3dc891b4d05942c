"""What the comparison says: result in words, variants × metrics, paired tests, bias types, pairs that flipped."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from biasdiff_core.audit import Audit
from biasdiff_core.config.evaluation import Scoring
from biasdiff_core.evaluation.crows_pairs import PairScores, load_pairs
from biasdiff_core.report import headline, metric_rows
from biasdiff_core.results import Comparison, PairedTest
from biasdiff_core.workspace.artefacts import open_artefact
from biasdiff_ui.charts import forest, show
from biasdiff_ui.format import DASH, VARIANTS, count, metric_help, metric_name, metric_text, p_text, test_words, variant_name
from biasdiff_ui.notices import errors_shown, plain

SCORE = "stereotype_score"
TESTS = "Paired tests on the same pairs"


def result_in_words(comparison: Comparison) -> None:
    """One sentence a mitigation, and what could not be compared."""
    st.markdown("\n".join(f"- {plain(sentence)}" for sentence in headline(comparison)))
    for note in comparison.notes:
        st.caption(plain(note))


def metrics_table(comparison: Comparison) -> None:
    """Every main metric of every variant with its interval and n; the convention of each row stands beside it."""
    st.subheader("Variants")
    rows = []
    for name, results in metric_rows(comparison):
        there = [result for result in results if result is not None]
        equal = len({result.n for result in there}) == 1
        shown = {variant_name(v): metric_text(r, with_n=not equal) for v, r in zip(comparison.variants, results, strict=True)}
        rows.append({"metric": metric_name(name), "n": str(there[0].n) if equal else "", **shown, "convention": metric_help(there[0])})
    explained = {variant_name(v): st.column_config.TextColumn(help=VARIANTS.get(v, v)) for v in comparison.variants}
    note = "How exactly the figure is computed; compare only within one convention. Brackets: 95 % interval."
    config = {**explained, "convention": st.column_config.TextColumn(help=note, width="medium")}
    st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=config, height="content", alt="Variants by metrics with intervals")


def paired_tests(comparison: Comparison) -> None:
    """Paired tests in words, over all pairs and by bias type."""
    st.subheader("Tests on the same pairs")
    whole = [_test_row(test, "exact p") for test in comparison.tests if test.metric.count(".") == 2]
    st.dataframe(pd.DataFrame(whole), hide_index=True, height="content", alt=TESTS)
    by_type = [test for test in comparison.tests if test.metric.count(".") > 2]
    if by_type:
        with st.expander(f"By bias type: {count(len(by_type), 'test')}, p adjusted by Holm"):
            st.dataframe(pd.DataFrame([_test_row(test, "adjusted p") for test in by_type]), hide_index=True, alt=f"{TESTS}, by bias type")


def _test_row(test: PairedTest, p_column: str) -> dict[str, object]:
    return {
        "variant": f"{variant_name(test.variant)} against {test.reference}",
        "metric": metric_name(test.metric),
        "difference [95 %]": test_words(test),
        p_column: DASH if test.p_value is None else p_text(test.p_value),
        "n": test.n,
        "convention": test.convention,
    }


def types_chart(comparison: Comparison, scoring: Scoring) -> None:
    """The stereotype score of every variant by bias type."""
    prefix = f"crows_pairs.{scoring}.{SCORE}"
    kinds = sorted(name.removeprefix(f"{prefix}.") for name in comparison.metrics["origin"] if name.startswith(f"{prefix}."))
    title = f"Stereotype score by bias type, 95 % Wilson intervals ({scoring} scoring)"
    show(forest(comparison.metrics, kinds, prefix, title), "compare_forest", f"{title}: {', '.join(comparison.variants)}")


def flipped_pairs(audit: Audit, comparison: Comparison, scoring: Scoring) -> None:
    """The pairs whose preferred sentence changed against the reference, with both margins."""
    st.subheader("Pairs that flipped")
    variant = st.segmented_control(
        "Variant",
        [v for v in comparison.variants if v != "base"],
        format_func=variant_name,
        key="flips_variant",
        required=True,
        default="origin",
    )
    reference = "base" if variant == "origin" else "origin"
    with errors_shown():
        scores = {v: _scores(audit, comparison, v) for v in (reference, variant)}
        table = flips(scores[variant], scores[reference], scoring)
        texts = {pair.id: pair for pair in load_pairs(audit.config.evaluation.crows_pairs)}
        table["more stereotyped"] = [texts[i].sent_more if i in texts else "" for i in table["id"]]
        table["less stereotyped"] = [texts[i].sent_less if i in texts else "" for i in table["id"]]
        towards = int((table["margin after"] > 0).sum())
        words = f"{count(len(table), 'pair')} of {len(scores[variant].frame):,} flipped from {reference} to {variant_name(variant)}"
        st.markdown(plain(f"{words}: {towards} towards the first sentence, {len(table) - towards} away from it."))
        if len(table):
            st.dataframe(table, hide_index=True, column_config=_FLIP_FORMATS, alt=words)


_FLIP_FORMATS = {
    name: st.column_config.NumberColumn(format="%+.3f", help="Score of the first sentence less that of the second.")
    for name in ("margin before", "margin after")
}


def _scores(audit: Audit, comparison: Comparison, variant: str) -> PairScores:
    artefact = open_artefact(audit.folder.path, "evaluation", comparison.provenance[variant]["evaluation"])
    return PairScores.load(artefact.path("crows_pairs.parquet"))


def flips(after: PairScores, before: PairScores, scoring: Scoring) -> pd.DataFrame:
    """Pairs that changed sides, ties left out; most moved first. Columns id, bias type, direction, margin before, margin after."""
    wins, won = after.wins(scoring), before.wins(scoring)
    ties = after.ties(scoring) | before.ties(scoring)
    table = after.frame[["id", "bias_type", "direction"]].rename(columns={"bias_type": "bias type"})
    table = table.assign(**{"margin before": before.margins(scoring), "margin after": after.margins(scoring)})
    chosen: pd.DataFrame = table[(wins != won) & ~ties]
    moved = (chosen["margin after"] - chosen["margin before"]).abs()
    return chosen.loc[moved.sort_values(ascending=False).index].reset_index(drop=True)


def provenance_table(comparison: Comparison, keys: Mapping[str, str], environment: Mapping[str, object]) -> None:
    """Where each figure comes from."""
    with st.expander("Provenance: keys and digests behind every figure"):
        inputs = [{"of": name, "what": "stage key", "value": key} for name, key in keys.items() if name in ("removal", "ranking")]
        rows = [{"of": v, "what": what, "value": value} for v, found in comparison.provenance.items() for what, value in found.items()]
        st.dataframe(pd.DataFrame(inputs + rows), hide_index=True, alt="Stage keys and digests")
        machine = f"{environment['processor']}, {environment['cores']} cores"
        st.caption(plain(f"BiasDiff {environment['biasdiff']}, commit {environment['commit']}; {machine}."))
