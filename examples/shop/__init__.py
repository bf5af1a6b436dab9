"""
A small shop: the same routes in Flask, FastAPI and Django, each cause of pool exhaustion beside its repaired twin. What
only tasks and event loops bring about is in FastAPI alone (`fastapi_tasks`), an engine for each request in Flask.

Nothing in this package knows that it is being watched.
"""
