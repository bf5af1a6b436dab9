"""
Patches, import hooks, and how each hooked library stands: the only users of wrapt.
"""
