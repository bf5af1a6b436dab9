"""SQL: its tokens, fingerprints of statements, batches, and repetitions of a statement."""
