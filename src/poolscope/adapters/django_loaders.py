"""The parts of Django's ORM that run statements on the application's behalf."""

from __future__ import annotations

from typing import Final

from poolscope.core.libraries import Loader

# What is written row by row, as save() in a loop does.
_WRITTEN: Final = {
    "INSERT": "write all rows at once: bulk_create(...)",
    "UPDATE": "write all rows at once: bulk_update(...), or one .filter(...).update(...)",
    "DELETE": "delete all at once: one .filter(...).delete()",
}

RELATED: Final = Loader(
    "Django related object",
    "django/db/models/fields/related_descriptors.py",
    "eager loading: .select_related(...) for a foreign key, .prefetch_related(...) for what points back",
    fixes=_WRITTEN,
)
PREFETCH: Final = Loader(
    "Django prefetch",
    "django/db/models/query.py",
    "load for more objects at once: a larger .iterator(chunk_size=...), or one query for all they belong to",
    functions=("prefetch_one",),
)
QUERY_SET: Final = Loader(
    "Django query set",
    "django/db/models/query.py",
    "eager loading with .prefetch_related(...), or one query with field__in=... for all",
    fixes=_WRITTEN,
    called_by=(RELATED.name, PREFETCH.name),
)

#: The query set's file is that of the prefetch too, whose functions come first.
LOADERS: Final = (RELATED, PREFETCH, QUERY_SET)
