"""The record: artefacts (key, manifest, atomic publish, verify), audit folders, database, jobs."""
