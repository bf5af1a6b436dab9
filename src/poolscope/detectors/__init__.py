"""Evidence in, findings out: no telemetry, no libraries."""
