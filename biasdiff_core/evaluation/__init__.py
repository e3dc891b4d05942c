"""What each variant is judged by: CrowS-Pairs, perplexity, and their statistics."""
