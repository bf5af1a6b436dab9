"""Patches, import hooks, and the state of each hooked library: the only users of wrapt."""
