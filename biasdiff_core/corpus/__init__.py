"""Training examples and probes: reading, validating, finding duplicates and leakage."""
