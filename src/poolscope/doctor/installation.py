"""
What is installed: the interpreter, the packages that poolscope needs, and the entry point for
auto-instrumentation.
"""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import TYPE_CHECKING, Final

from poolscope import __version__
from poolscope.doctor.model import Remark, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.doctor.model import Environment

# Those that the hooks need, and that pip has installed with poolscope.
_NEEDED: Final = (
    "opentelemetry-api",
    "opentelemetry-instrumentation",
    "opentelemetry-semantic-conventions",
    "wrapt",
)
_GROUP: Final = "opentelemetry_instrumentor"
_TARGET: Final = "poolscope.instrumentor:PoolscopeInstrumentor"
_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


def versions(_: Environment) -> Iterator[Remark]:
    """The interpreter, poolscope, and what it needs."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield Remark(Status.OK, f"{python} at {sys.executable}", facts={"python": platform.python_version()})
    yield Remark(Status.OK, f"poolscope {__version__}", facts={"poolscope": __version__})
    for package in _NEEDED:
        found = installed(package)
        if found:
            yield Remark(Status.OK, f"{package} {found}", facts={package: found})
        else:
            yield Remark(Status.PROBLEM, f"{package} is not installed", f"Install it: pip install {package}")


def entry_point(environment: Environment) -> Iterator[Remark]:
    """Whether `opentelemetry-instrument` finds poolscope, and may use it."""
    found = [point.value for point in entry_points(group=_GROUP, name="poolscope")]
    if _TARGET in found:
        yield Remark(Status.OK, "opentelemetry-instrument finds poolscope")
    else:
        fix = "Reinstall it (pip install --force-reinstall poolscope), or call PoolscopeInstrumentor().instrument()."
        yield Remark(Status.PROBLEM, f"No installed package has an entry point poolscope in {_GROUP}", fix)
    disabled = {name.strip() for name in environment.environ.get(_DISABLED, "").split(",")}
    if disabled & {"poolscope", "*"}:
        yield Remark(Status.PROBLEM, f"{_DISABLED} disables poolscope", f"Take it out of {_DISABLED}.")


def installed(package: str) -> str:
    """The version of a distribution; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
