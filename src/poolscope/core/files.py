"""Paths of files, without asking where the process is: a working directory that was deleted has no path."""

from __future__ import annotations

import os
from typing import Final


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it is deleted already
        return ""


# Where the process was when it imported this. What has a relative path was compiled by then, more likely than after a
# later change of the working directory.
_STARTED_IN: Final = _working_directory()


def absolute(path: str) -> str:
    """
    The path of a file or folder from the root, with neither ``.`` nor ``..``.

    Args:
        path: From the root, or from where the process was when poolscope was imported; where that was deleted by then,
            a relative path stays as it is.
    """
    return os.path.normpath(os.path.join(_STARTED_IN, path))
