"""
A small shop: the same routes in Flask, FastAPI and Django, each cause of pool exhaustion beside its repaired twin.

Nothing in this package knows that it is being watched.
"""
