"""The contract on libraries: the longest matching line decides, the standard library is free."""

from __future__ import annotations

import pytest

from tools.import_contracts import parse, permits

ALLOWED = parse(
    [
        "poolscope.otel: opentelemetry",
        "poolscope.semconv:",
        "poolscope.cli: click rich",
        "poolscope.adapters.dbapi*: dbapi",
    ]
)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("poolscope.otel", "opentelemetry"),
        ("poolscope.otel.metrics.instruments", "opentelemetry"),
        ("poolscope.cli", "rich"),
        ("poolscope.core.pool_registry", "threading"),
        ("poolscope.adapters.dbapi", "dbapi"),
        ("poolscope.adapters.dbapi_source", "dbapi"),
    ],
)
def test_a_listed_library_and_the_standard_library_are_permitted(importer: str, imported: str) -> None:
    """A module may import what its line, or that of the package it is in, lists; and the standard library always."""
    assert permits(ALLOWED, importer, imported)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("poolscope.otel", "wrapt"),
        ("poolscope.semconv", "opentelemetry"),
        ("poolscope.core.pool_registry", "opentelemetry"),
        ("poolscope.client", "click"),
    ],
)
def test_any_other_library_is_not(importer: str, imported: str) -> None:
    """
    A library that is not listed is refused; a line of the module itself overrides that of its package; a name that only
    begins alike is another module.
    """
    assert not permits(ALLOWED, importer, imported)
