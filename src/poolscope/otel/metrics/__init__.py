"""Metrics: instruments, what is observed at a collection, and histograms that are handed over ready-made."""
