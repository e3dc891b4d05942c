"""The language model: loading, LoRA, tokenising, likelihoods, and the one training loop."""
