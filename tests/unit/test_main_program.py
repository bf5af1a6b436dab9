"""What the main program is called, and when it is none."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.libraries import KNOWN
from poolscope.core.origin import Origins
from poolscope.core.pool_registry import PoolRegistry
from poolscope.frameworks.script import ScriptFramework, name_of_main
from poolscope.hooks.registry import declare

if TYPE_CHECKING:
    from collections.abc import Callable

POOL_REGISTRY = PoolRegistry((1.0,), origins=Origins())


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the main program another one, outside of pytest."""
    monkeypatch.setattr(KNOWN, "servers", ("served",))

    def make(file: str | None, spec: str | None = None, argv: str = "") -> None:
        module = ModuleType("__main__")
        if file is not None:
            module.__file__ = file
        module.__spec__ = ModuleSpec(spec, None) if spec is not None else None
        monkeypatch.setitem(sys.modules, "__main__", module)
        monkeypatch.setattr(sys, "argv", [argv])

    return make


def name() -> str | None:
    """Its name."""
    return name_of_main(POOL_REGISTRY, sys._getframe())


@pytest.mark.parametrize(
    ("file", "spec", "argv", "expected"),
    [
        ("/srv/jobs/nightly.py", None, "", "nightly.py"),
        ("/srv/jobs/__main__.py", "jobs.__main__", "", "jobs"),
        ("/srv/jobs/nightly.py", "jobs.nightly", "", "jobs.nightly"),
        ("/srv/jobs.zip/__main__.py", "__main__", "", "__main__.py"),
        (None, None, "-c", "<string>"),
        (None, None, "-", "<stdin>"),
        (pytest.__file__, None, "", None),
        (f"{sys.prefix}/bin/gunicorn", None, "", None),
    ],
)
def test_it_has_the_scripts_or_modules_name(
    main: Callable[..., None], file: str | None, spec: str | None, argv: str, expected: str | None
) -> None:
    """Without a path; a library's program is none of the application's."""
    main(file, spec, argv)
    assert name() == expected


def test_a_prompt_is_no_script(main: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A person types there."""
    main("/srv/shell.py")
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert name() is None


def test_what_a_server_calls_is_no_scripts_work(main: Callable[..., None]) -> None:
    """Though the script starts the server."""
    main("/srv/app.py")
    served: dict[str, Any] = {"__name__": "served.forever"}
    exec("def run(call):\n    return call()", served)
    assert served["run"](name) is None
    assert name() == "app.py"


def test_pytest_is_none() -> None:
    """Its tests are not the work of one job."""
    declare(ScriptFramework())
    assert name() is None
