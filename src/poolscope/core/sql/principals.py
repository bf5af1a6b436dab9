"""
Who may do what: users and roles in statements, and what they log in with.

Their names stand in a statement as those of tables do, and some databases take a password without quotes. So of such a
statement stays what it does, and not whom it is about.
"""

from __future__ import annotations

import re
from typing import Final

# Where a statement begins.
_BEGIN: Final = r"(?:\A ?|; ?)(?:explain (?:query plan )?)?"
# A word, or what stands for a name in quotes; ``user@host`` is two with a sign between.
_ONE: Final = r"[^\s,;()=@]+"
_WHO: Final = rf"{_ONE}(?: ?@ ?{_ONE})?"

# Wherever these stand, what follows is about users, as far as the statement goes.
_ANYWHERE: Final = re.compile(
    r"\b(?P<kept>(?:create|alter|drop|rename) (?:or replace )?(?:external |local |application |server )?"
    r"(?:user mapping|user|role|group|login|credential|policy|profile|(?:public |shared )*database link)\b"
    r"|alter default privileges\b|(?:reassign|drop) owned by\b|administer key management\b"
    r"|identified (?:by|with|via|as|using|externally|globally)\b|(?:schema|session|alter) authorization\b"
    r"|show (?:grants|create user)\b|comment on role\b|security label (?:for \S+ )?on role\b"
    r"|execute as (?:user|login)\b|(?:admin|purge tablespace \S+) user\b|clone instance from\b"
    r"|all in tablespace \S+ owned by\b|show default (?:privileges|session variables)\b"
    # SQL Server takes the arguments of a procedure without quotes.
    r"|exec(?:ute)? (?:\? ?= ?)?(?!(?:on|as|from|to|function|procedure|immediate|privileges) )[\w.\0]+(?= [^(]))"
    r"(?P<rest>[^;]*)"
)
# The same where a statement begins with them. SQLite takes a file, a key, a setting and a module's arguments without
# quotes; SQL Server's first statement may be a procedure's name alone; ``connect`` is SQL*Plus's.
_AT_BEGIN: Final = re.compile(
    rf"(?P<kept>{_BEGIN}(?:set (?:session |local |global |persist |persist_only )?"
    r"(?:role|session authorization|password|default role)\b"
    r"|alter (?:system|session|database \S+) set\b|(?:no)?audit\b|deny\b"
    r"|(?:create (?:or replace )?|alter )(?:function|procedure|routine|tenant|virtual cluster) [^;]*? set\b"
    r"|kill (?:(?:hard|soft|connection|query) )*user\b|conn\b|connect\b|[\w.]*\bsp_\w+(?= )"
    r"|pragma [\w. ]*|attach(?: database)?\b|create virtual table [^;(]*))(?P<rest>[^;]*)"
)
# The rows that a client sends behind a COPY.
_ROWS: Final = re.compile(
    rf"(?P<kept>{_BEGIN}copy [^;]*? from stdin\b(?: ?(?:with ?)?\([^()]*\))? ?;?)(?P<rest>.*)", re.DOTALL
)
# A setting's value needs no quotes either.
_SETTING: Final = re.compile(rf"(?P<kept>{_BEGIN}set (?!statement\b)[^;=]*?(?:=| to ))(?P<rest>[^;]*)")
# Behind these stands one of them.
_ONE_USER: Final = re.compile(
    rf"\b(?P<kept>definer ?= ?|owner to |granted by |current_schema ?= ?|with user ?= ?){_WHO}"
)
_OWNER: Final = re.compile(
    rf"(?P<kept>{_BEGIN}(?:(?:create|alter) (?:database|tablespace|schema)\b[^;]*? owner ?=? ?"
    rf"|create [^;]*? authorization (?!from\b|,))){_WHO}"
)
_RIGHTS: Final = re.compile(r"(?<!with )\b(?P<verb>grant|revoke) (?P<rest>[^;]*)")
_ON: Final = re.compile(r"\bon\b")
_TO: Final = re.compile(r"\b(?:to|from)\b ?")

# Without one of these there is none of that: for nearly all statements that is all.
_MAY_BE: Final = re.compile(
    r"\b(?:create|alter|drop|rename|reassign|administer|identified|show|comment|security|audit|noaudit|deny|kill"
    r"|exec(?:ute)?|pragma|attach|definer|owner|granted|current_schema|grant|revoke|authorization|purge|copy"
    rf"|conn|connect)\b|\bsp_|{_BEGIN}set "
)


def without_principals(text: str) -> str:
    """
    A statement with a question mark in place of the users and roles that it is about.

    Args:
        text: In lower case, without literals and comments, with single spaces.
    """
    if not _MAY_BE.search(text):
        return text
    text = _RIGHTS.sub(_without_whom, text)
    for pattern in (_ANYWHERE, _AT_BEGIN, _SETTING, _ROWS):
        text = pattern.sub(_without_rest, text)
    return _OWNER.sub(r"\g<kept>?", _ONE_USER.sub(r"\g<kept>?", text))


def _without_rest(found: re.Match[str]) -> str:
    return found["kept"].rstrip(" ") + " ?" if found["rest"].strip() else found[0]


def _without_whom(found: re.Match[str]) -> str:
    verb, rest = found["verb"], found["rest"]
    on = _ON.search(rest) if not rest.startswith("proxy ") else None
    to = _TO.search(rest, on.end()) if on is not None else None
    return f"{verb} {rest[: to.end()]}?" if to is not None else f"{verb} ?"
