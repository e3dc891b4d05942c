"""What the model learned from: counts, duplicates, leakage of probes, groups, search; and corpora built from recipes."""

import streamlit as st

from biasdiff_core.corpus.summary import CorpusReport
from biasdiff_ui.boot import require_boot
from biasdiff_ui.corpus_build import build_corpus
from biasdiff_ui.corpus_view import counts, findings, load_leakage, search
from biasdiff_ui.group_coverage import group_coverage
from biasdiff_ui.loaders import record, table
from biasdiff_ui.notices import errors_shown
from biasdiff_ui.state import current_audit
from biasdiff_ui.timeline import opening

require_boot("corpus")

audit = current_audit()
at = opening("Corpus", audit)
if audit is not None and at is not None and at.plan["probes"].done:
    with errors_shown():
        corpus, probes = audit.artefact("corpus"), audit.artefact("probes")
        rows = table(corpus, "corpus.parquet")
        report = CorpusReport.from_json(record(corpus, "report.json"))
        notes = record(probes, "report.json")["notes"]
        st.caption(f"{report.rows_used:,} of {report.rows_read:,} rows read are used.")
        st.text(f"Read from: {report.source}")
        counts(report, rows)
        findings(report, rows, load_leakage(audit), table(probes, "probes.parquet"), notes)
        group_coverage(audit, corpus.key, rows)
        search(rows)
elif at is not None:
    st.info("The corpus is shown here once the analysis has read it.")
build_corpus()
