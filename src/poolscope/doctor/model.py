"""What an examination consists of, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from poolscope import __version__
from poolscope.config import Settings, examine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: The version of the JSON document; it changes when a reader of the last one would misread it.
DOCUMENT_VERSION: Final = 1


class Status(Enum):
    """What a remark means for the reader."""

    OK = "ok"
    #: Poolscope works, but not as it was meant to, or that is not certain.
    WARNING = "warning"
    #: Something keeps poolscope from working.
    PROBLEM = "problem"


@dataclass(frozen=True)
class Remark:
    """
    One thing that a check found.

    Args:
        status: What it means.
        text: What was found, in one sentence.
        fix: What to do about it; empty where there is nothing to do.
        facts: The same for programs.
    """

    status: Status
    text: str
    fix: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """
    What the checks look at.

    Args:
        environ: The environment's variables.
        settings: Poolscope's settings in effect.
        wrong_settings: A sentence for each setting that is wrong or misspelt.
    """

    environ: Mapping[str, str]
    settings: Settings
    wrong_settings: tuple[str, ...]

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Environment:
        """Read the settings from these variables."""
        settings, problems = examine(environ=environ)
        return cls(environ, settings, tuple(problems))


@dataclass(frozen=True)
class Check:
    """
    One subject to look at.

    Args:
        id: Its name in the JSON document.
        title: What it is about, as a heading.
        examine: Looks, and remarks on what it finds; it changes nothing that it does not put back.
    """

    id: str
    title: str
    examine: Callable[[Environment], Iterable[Remark]]


@dataclass(frozen=True)
class Result:
    """
    What a check found.

    Args:
        id: The check's.
        title: The check's.
        remarks: What it found.
    """

    id: str
    title: str
    remarks: tuple[Remark, ...]


@dataclass(frozen=True)
class Examination:
    """
    What all checks found.

    Args:
        results: Those of each check, in order.
    """

    results: tuple[Result, ...]

    def count(self, status: Status) -> int:
        """The number of remarks of one status."""
        return sum(remark.status is status for result in self.results for remark in result.remarks)

    @property
    def works(self) -> bool:
        """Whether nothing keeps poolscope from working."""
        return not self.count(Status.PROBLEM)

    def as_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "version": DOCUMENT_VERSION,
            "poolscope": __version__,
            "works": self.works,
            "checks": [
                {
                    "id": result.id,
                    "title": result.title,
                    "remarks": [
                        {"status": one.status.value, "text": one.text, "fix": one.fix, "facts": dict(one.facts)}
                        for one in result.remarks
                    ],
                }
                for result in self.results
            ],
        }
