"""The parts of SQLAlchemy's ORM that run statements on the application's behalf."""

from __future__ import annotations

from typing import Final

from poolscope.core.libraries import Loader

LAZY: Final = Loader(
    "SQLAlchemy lazy load",
    "sqlalchemy/orm/strategies.py",
    "eager loading: .options(selectinload(...)) for a collection, joinedload(...) for a single object, "
    "undefer(...) for a column",
    functions=("_load_for_state", "_emit_lazyload"),
)
EXPIRED: Final = Loader(
    "SQLAlchemy refresh",
    "sqlalchemy/orm/loading.py",
    "the objects have expired with a commit and are read again one by one: read what is needed before the commit, "
    "use expire_on_commit=False, or select them again in one query",
    functions=("load_scalar_attributes", "_load_scalar_attributes"),
    called_by=(LAZY.name,),  # a deferred column
)
EAGER: Final = Loader(
    "SQLAlchemy eager load",
    "sqlalchemy/orm/strategies.py",
    "load for more objects at once: a larger yield_per(...), or one query for all that they belong to",
    functions=("_load_for_path", "_load_via_parent", "_load_via_child"),
)

LOADERS: Final = (LAZY, EXPIRED, EAGER)
