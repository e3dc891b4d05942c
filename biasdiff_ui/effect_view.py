"""What influence predicted of a removal beside what the evaluation observed."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from biasdiff_core.effect import EXPLAINED, FEWEST, Effect, in_words
from biasdiff_core.naming import variant_name
from biasdiff_core.report import difference_text
from biasdiff_ui.charts import predicted_observed, show
from biasdiff_ui.notices import plain


def predicted_against_observed(found: Sequence[Effect], scoring: str, unit: str) -> None:
    """The table, and from three variants on the chart. `unit`: of the margin in this scoring."""
    st.subheader("Predicted against observed")
    if not found:
        st.caption("No variant of this comparison was trained without examples, which is what influence predicts.")
        return
    st.caption(EXPLAINED)
    rows = [
        {
            "variant": variant_name(effect.variant),
            "removed": effect.removed,
            "without a score": effect.unscored,
            "predicted (cosines)": effect.predicted,
            "observed change of the margin [95 %]": difference_text(effect.observed),
        }
        for effect in found
    ]
    frame = pd.DataFrame(rows)
    if not frame["without a score"].any():
        frame = frame.drop(columns="without a score")
    config = {"predicted (cosines)": st.column_config.NumberColumn(format="%+.3f")}
    st.dataframe(frame, hide_index=True, column_config=config, height="content", alt="Predicted and observed changes")
    if len(found) >= FEWEST:
        title, subtitle = "Observed over predicted change", f"95 % intervals, {scoring} scoring"
        show(predicted_observed(found, unit, title, subtitle), "compare_effect", f"{title}, {subtitle}")
    st.markdown(plain(in_words(found)))
