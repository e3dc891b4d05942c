"""The probing set: how good it is and each probe with its twin; and the curation of any probing set."""

import streamlit as st

from biasdiff_ui.boot import require_boot
from biasdiff_ui.curation_view import curation
from biasdiff_ui.notices import errors_shown
from biasdiff_ui.probes_view import bias_types, figures, load_quality, number_of_probes, probe_rows, probe_table, weaknesses
from biasdiff_ui.state import current_audit
from biasdiff_ui.timeline import opening

QUALITY, CURATION = "Quality", "Curation"

require_boot("probes")

audit = current_audit()
at = opening("Probes", audit)
part = CURATION
if audit is not None and at is not None:
    part = st.segmented_control(
        "Part", [QUALITY, CURATION], default=QUALITY, key="part", required=True, bind="query-params", label_visibility="collapsed"
    )
if part == CURATION:
    curation(audit)
elif audit is not None and at is not None:
    if not at.plan["probes"].done:
        st.info("The probes are shown here once the analysis has read them.")
        st.stop()
    with errors_shown():
        quality = load_quality(audit, at.plan)
        weaknesses(quality)
        figures(quality)
        bias_types(quality)
        number_of_probes(quality)
        probe_table(probe_rows(audit.probes(), quality))
