"""The vocabulary and the hot path: pools, leases, waits, phases. Standard library only."""
