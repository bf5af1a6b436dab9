"""
Names that the application gives, to pools, units of work, threads and sessions: one may be a URL or a connection
string, and hold a login. Such a name never leaves the process.
"""

from __future__ import annotations

import re
from typing import Final

#: In the place of a name that may hold a login.
HIDDEN: Final = "<hidden>"

# A setting by which a driver logs in, with its value.
_SETTING: Final = re.compile(
    r"(?:user|username|uid|login|pass|password|passwd|passphrase|pwd|secret|token|key)\s*=", re.IGNORECASE
)
# Oracle's connect string with a login; such a password with a sign of its own is in quotes (SQL*Plus, CONNECT).
_WITH_SLASH: Final = re.compile(r"""(?:^|\s)[^\s/@]+/(?:"[^"]*"|[^\s/@]+)@[\w/\[(]""")


def safe(name: str, otherwise: str = HIDDEN) -> str:
    """
    A name, where no part of it may be a login.

    Args:
        name: As the application gives it.
        otherwise: What to call it where one may be.
    """
    return otherwise if may_hold_login(name) else name


def may_hold_login(text: str) -> bool:
    """
    Whether a text has the form of a URL, of ``user:password@host``, of Oracle's ``user/password@host``, or of a setting
    that is a login's.
    """
    if "://" in text or ("=" in text and _SETTING.search(text) is not None):
        return True
    if "@" not in text:
        return False
    return any(0 < word.find(":") < word.rfind("@") for word in text.split()) or _WITH_SLASH.search(text) is not None
