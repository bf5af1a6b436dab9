"""Frameworks that begin and end units of work: one file for each."""
