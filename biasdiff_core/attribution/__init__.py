"""Which training examples raise the probes' likelihood: gradients, projection, store, influence, ranking, map."""
