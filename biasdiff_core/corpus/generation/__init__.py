"""Generated probes: pairs that a language model or a template writes, and that are hostile until judged."""
