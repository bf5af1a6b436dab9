"""
Whether poolscope can work in this interpreter, and what keeps it from that.

    examination = examine()
    print(examination.works)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.config import environment as variables
from poolscope.core.failure import type_and_place
from poolscope.doctor.checks import CHECKS
from poolscope.doctor.model import Check, Environment, Examination, Remark, Result, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["CHECKS", "Check", "Environment", "Examination", "Remark", "Result", "Status", "examine"]


def examine(checks: Iterable[Check] = CHECKS, environ: Mapping[str, str] | None = None) -> Examination:
    """
    Run every check; one that fails does not stop the others.

    Args:
        checks: What to look at, in order.
        environ: The environment's variables; the process's own when not given.
    """
    environment = Environment.of(variables() if environ is None else environ)
    return Examination(tuple(_result(check, environment) for check in checks))


def _result(check: Check, environment: Environment) -> Result:
    try:
        remarks = tuple(check.examine(environment))
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks are worth having
        text = f"This check failed: {type_and_place(error)}"
        remarks = (Remark(Status.PROBLEM, text, "Report this as a bug of poolscope, with the line above."),)
    return Result(check.id, check.title, remarks)
