"""What the comparison says: result in words, figures and paired tests by evaluation, bias types, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from biasdiff_core.comparison import BASE, ORIGIN, headline
from biasdiff_core.config.evaluation import Scoring
from biasdiff_core.guide import guide_of
from biasdiff_core.naming import metric_label, variant_name
from biasdiff_core.report import MetricTable, Section, difference_text, sections
from biasdiff_core.results import Comparison, PairedTest
from biasdiff_ui.charts import forest, show
from biasdiff_ui.format import DASH, count, metric_text, p_text
from biasdiff_ui.notices import plain

SCORE = "stereotype_score"
ITEMS = "items, n"
VARIANT_WIDTH = 160
FOREST_VARIANTS = 5
WHAT_THEY_ARE: Mapping[str, str] = {BASE: "the model before it was trained on the corpus", ORIGIN: "trained on the whole corpus"}


def result_in_words(comparison: Comparison) -> None:
    """One sentence a mitigation; what could not be compared, and how small a change the pairs could show."""
    st.markdown("\n".join(f"- {plain(sentence)}" for sentence in headline(comparison)))
    if comparison.notes:
        with st.expander(f"{count(len(comparison.notes), 'note')}: what could not be compared, how small a change could be seen"):
            st.markdown("\n".join(f"- {plain(note)}" for note in comparison.notes))


def variants(comparison: Comparison) -> None:
    """Variants × metrics with paired tests, a tab an evaluation."""
    st.subheader("Variants")
    st.caption("Brackets: 95 % intervals. " + " ".join(f"{name.capitalize()}: {what}." for name, what in WHAT_THEY_ARE.items()))
    found = sections(comparison)
    for tab, section in zip(st.tabs([section.title for section in found]), found, strict=True):
        with tab:
            _section(section)


def _section(section: Section) -> None:
    if section.figures.columns:
        figures_table(section.figures, f"{section.title}: variants by metrics with intervals")
    if section.tests:
        st.caption("Tests on the same items")
        _tests_table(section.tests, "exact p", section.title)
    if section.details.columns:
        with st.expander("By bias type, test or task"):
            figures_table(section.details, f"{section.title}: variants by bias type, test or task")
            if section.detail_tests:
                st.caption(f"{count(len(section.detail_tests), 'test')} on the same items, p adjusted by Holm")
                _tests_table(section.detail_tests, "adjusted p", f"{section.title}, in detail")
    with st.expander("How these figures are computed"):
        for convention, columns in section.conventions().items():
            st.markdown(f"**{plain(', '.join(column.label for column in columns))}**: {plain(convention)}")


def figures_table(table: MetricTable, alt: str) -> None:
    """A row a variant, a column a metric; the number of items in a row of its own, or beside each figure where it differs."""
    counts = {ITEMS: [DASH if column.n is None else f"{column.n:,}" for column in table.columns]}
    rows = {
        variant_name(variant): [metric_text(result, with_n=column.n is None) for result, column in zip(results, table.columns, strict=True)]
        for variant, results in table.rows.items()
    }
    names = [column.label for column in table.columns]
    frame = pd.DataFrame.from_dict(rows | counts, orient="index", columns=names).rename_axis("variant").reset_index()
    config = {
        column.label: st.column_config.TextColumn(help=f"{guide_of(column.metric).words()} {plain(' '.join(column.conventions))}")
        for column in table.columns
    }
    config["variant"] = st.column_config.TextColumn(pinned=True, width=VARIANT_WIDTH)
    st.dataframe(frame, hide_index=True, column_config=config, height="content", alt=alt)


def _tests_table(tests: Sequence[PairedTest], p_column: str, title: str) -> None:
    rows = [
        {
            "variant": f"{variant_name(test.variant)} against {variant_name(test.reference)}",
            "figure": metric_label(test.metric),
            "difference [95 %]": difference_text(test),
            p_column: DASH if test.p_value is None else p_text(test.p_value),
            "n": test.n,
        }
        for test in tests
    ]
    p_help = "Exact McNemar test of the pairs that changed sides; a dash where the figure has no such test."
    config = {p_column: st.column_config.TextColumn(help=p_help)}
    st.dataframe(pd.DataFrame(rows), hide_index=True, column_config=config, alt=f"{title}: paired tests")


def types_chart(comparison: Comparison, scoring: Scoring) -> None:
    """The stereotype score of the chosen variants by bias type."""
    prefix = f"crows_pairs.{scoring}.{SCORE}"
    kinds = sorted(name.removeprefix(f"{prefix}.") for name in comparison.metrics[ORIGIN] if name.startswith(f"{prefix}."))
    every = list(comparison.variants)
    chosen = every
    if len(every) > FOREST_VARIANTS:
        chosen = st.pills(
            "Variants shown",
            every,
            selection_mode="multi",
            default=every[:FOREST_VARIANTS],
            format_func=variant_name,
            key="forest_variants",
        )
    shown = {variant: comparison.metrics[variant] for variant in every if variant in chosen}
    title, subtitle = "Stereotype score by bias type", f"95 % Wilson intervals, {scoring} scoring"
    if shown:
        alt = f"{title}, {subtitle}: {', '.join(map(variant_name, shown))}"
        show(forest(shown, kinds, prefix, title, subtitle), "compare_forest", alt)


def provenance_table(comparison: Comparison, keys: Mapping[str, str], environment: Mapping[str, object]) -> None:
    """Where each figure comes from."""
    with st.expander("Provenance: keys and digests behind every figure"):
        inputs = [{"of": name, "what": "stage key", "value": key} for name, key in keys.items() if name in ("removal", "ranking")]
        rows = [
            {"of": variant_name(v), "what": what, "value": value}
            for v, found in comparison.provenance.items()
            for what, value in found.items()
        ]
        st.dataframe(pd.DataFrame(inputs + rows), hide_index=True, alt="Stage keys and digests")
        machine = f"{environment['processor']}, {environment['cores']} cores"
        st.caption(plain(f"BiasDiff {environment['biasdiff']}, commit {environment['commit']}; {machine}."))
