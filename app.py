"""BiasDiff's app: page config, boot, navigation. `streamlit run app.py`, or `biasdiff app`."""

import streamlit as st

from biasdiff_ui.boot import boot, forwarded_page
from biasdiff_ui.sidebar import sidebar
from biasdiff_ui.style import apply_style

st.set_page_config(page_title="BiasDiff", page_icon="assets/icon.svg", layout="wide")
apply_style()
boot()

PAGES = {
    "audits": st.Page("pages/audits.py", title="Audits", default=True),
    "corpus": st.Page("pages/corpus.py", title="Corpus"),
    "probes": st.Page("pages/probes.py", title="Probes"),
    "explore": st.Page("pages/explore.py", title="Explore"),
    "review": st.Page("pages/review.py", title="Review"),
    "mitigate": st.Page("pages/mitigate.py", title="Mitigate"),
    "compare": st.Page("pages/compare.py", title="Compare"),
}

page = st.navigation(list(PAGES.values()), position="hidden")
wanted = forwarded_page(PAGES)
if wanted is not None:
    st.switch_page(wanted, query_params={k: v for k, v in st.query_params.items() if k != "goto"})
sidebar(PAGES)
page.run()
