"""Repetitions: how often one unit of work runs one shape of statement from one line."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from poolscope.core.libraries import KNOWN
from poolscope.core.location import know_template
from poolscope.core.sql.batches import Progress, plain_values
from poolscope.core.sql.fingerprint import KEPT, LONGEST, analyse, remembered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

    from poolscope.core.libraries import Loader
    from poolscope.core.sql.fingerprint import Shape
    from poolscope.types import LibraryObject

#: A line: a code object and an instruction's index; None where no frame was found.
CallSite = tuple["CodeType", int]

#: Why repetitions are all right here (`poolscope.expected_repetition`); None where they are not.
EXPECTED_REPETITION: Final[ContextVar[str | None]] = ContextVar("poolscope_expected_repetition", default=None)

_SEARCH: Final = 80
#: Where a connection ran nothing for so many seconds between two runs, the second is a poll, a retry or the answer to a
#: message: a loop over the rows of an earlier result goes on at once.
PAUSE: Final = 0.05
# Where that is so of one run in so many, and more than once or twice, a job that may run for as long as the process
# does works off messages: however many come at once, none of its runs is due to the one before.
_RUNS_PER_PAUSE: Final = 50
_FEW_PAUSES: Final = 2
# Before the first run that ended there is no pause.
_NOT_YET: Final = float("inf")


class Repetition:
    """
    One shape that one line of code ran.

    Args:
        shape: The shape.
        call_site: The line.
    """

    __slots__ = (
        "call_site",
        "count",
        "ended_at",
        "loader",
        "pauses",
        "progress",
        "queried",
        "same",
        "seconds",
        "shape",
        "text",
    )

    def __init__(self, shape: str, call_site: CallSite | None) -> None:
        self.shape = shape
        self.call_site = call_site
        self.count = 0
        #: How long the runs took from the second one on, in seconds.
        self.seconds = 0.0
        #: When the last run ended, in seconds of the pool's clock.
        self.ended_at = _NOT_YET
        #: How long its connection had run queries by then, in seconds.
        self.queried = 0.0
        #: How many runs began only after a pause.
        self.pauses = 0
        #: The values of its second run, while every later one had the same, and the same text; None where one had
        #: others, or they are not known.
        self.same: tuple[object, ...] | None = None
        #: The hash of that text.
        self.text = 0
        #: Who ran it on the application's behalf; None for SQL by hand.
        self.loader: Loader | None = None
        #: How far it has come, where it may be chunks.
        self.progress: Progress | None = None


class _Line:
    __slots__ = ("group", "groups", "text")

    def __init__(self) -> None:
        self.groups: dict[str, Repetition] = {}
        # The last statement that was counted, and to what: most loops run the same text.
        self.text: str | None = None
        self.group: Repetition | None = None


class Repetitions:
    """
    Counts what one unit of work repeats, in bounded space and with next to no work for what it does not.

    The first statement of each line is only noted. From the second one on that the same line runs, the shape is
    computed, once for each text in the process. Beyond the budget, unknown texts are counted to the line's shape where
    it has run but one, and not at all where it has run several.

    Args:
        system: The database.
        locate: Finds the application's line from a frame.
    """

    #: Lines, and shapes, that one unit of work may have.
    MOST: Final = 512
    #: Characters of statements whose shapes one unit of work may have computed.
    BUDGET: Final = 200_000

    __slots__ = ("_budget", "_groups", "_lines", "_locate", "_system", "beyond", "may_last")

    def __init__(self, system: str, locate: Callable[[FrameType | None], CallSite | None]) -> None:
        self._system = system
        self._locate = locate
        self._lines: dict[CallSite | None, str | _Line] = {}
        self._groups: list[Repetition] = []
        self._budget = self.BUDGET
        #: Statements that were not counted, for want of space.
        self.beyond = 0
        #: Whether the unit of work may run for as long as the process does, and work off messages.
        self.may_last = False

    def saw(self, statement: str, frame: FrameType | None, parameters: LibraryObject = None) -> Repetition | None:
        """
        A statement is run.

        Args:
            statement: SQL.
            frame: Where to look for the application from.
            parameters: What the driver gets for its parameters; looked at only to distinguish chunks from repetitions.

        Returns:
            What it is counted to; None for a line's first, and for what is meant to be repeated.
        """
        call_site = self._locate(frame)
        line = self._lines.get(call_site)
        if line is None:
            if len(self._lines) < self.MOST:
                self._lines[call_site] = statement[:KEPT]
            else:
                self.beyond += 1
            return None
        if isinstance(line, str):
            first, line = line, _Line()
            self._lines[call_site] = line
            self._count(first, call_site, line, None, None)
        group = line.group
        if group is not None and statement == line.text and group.count > 1:
            group.count += 1
            if group.same is not None and plain_values(parameters) != group.same:
                group.same = None
            return group
        return self._count(statement, call_site, line, frame, parameters)

    def texts(self) -> Iterator[str]:
        """
        The statement of each line that ran one, as it was sent, and the shapes of what other lines repeat; from any
        thread. The lines that were first to run come first.
        """
        for line in self._lines.copy().values():
            if isinstance(line, str):
                yield line
            else:
                yield from line.groups.copy()

    def beyond_threshold(self, threshold: int) -> Iterator[Repetition]:
        """
        What was repeated more often than the threshold, not counting runs after a pause. What works off messages is not
        repeated; nor is what asks for the same each time, as a retry or a look whether something is done.
        """
        return (
            group
            for group in tuple(self._groups)
            if group.count - group.pauses > threshold
            and group.same is None
            and not (self.may_last and _works_off(group))
        )

    def _count(
        self,
        statement: str,
        call_site: CallSite | None,
        line: _Line,
        frame: FrameType | None,
        parameters: LibraryObject,
    ) -> Repetition | None:
        shape = self._shape_of(statement)
        if shape is not None and shape.loops:
            return None
        group = self._group(shape, call_site, line)
        if group is None or (shape is None and group.progress is not None):
            self.beyond += 1
            return None
        if shape is not None and shape.chunked is not None:
            progress = group.progress = group.progress or Progress()
            if progress.goes_on(shape.chunked, parameters):
                return None
        else:
            line.text, line.group = statement[:KEPT], group
        group.count += 1
        if group.count == 2:  # noqa: PLR2004 - the second run: from here on it is a repetition
            group.loader = loader_of(frame, call_site)
            # The same chunk over and over is a repetition: it gets no further.
            values = plain_values(parameters) if group.progress is None else None
            group.same = values if values is not None and _size(values) <= LONGEST else None
            group.text = hash(statement)
        elif group.same is not None and (hash(statement) != group.text or plain_values(parameters) != group.same):
            group.same = None
        return group

    def _group(self, shape: Shape | None, call_site: CallSite | None, line: _Line) -> Repetition | None:
        if shape is None:
            return next(iter(line.groups.values())) if len(line.groups) == 1 else None
        group = line.groups.get(shape.text)
        if group is None and len(self._groups) < self.MOST:
            group = line.groups[shape.text] = Repetition(shape.text, call_site)
            self._groups.append(group)
        return group

    def _shape_of(self, statement: str) -> Shape | None:
        shape = remembered(statement, self._system)
        if shape is None and self._budget > 0:
            self._budget -= min(len(statement), LONGEST)
            shape = analyse(statement, self._system)
        return shape


def _size(values: tuple[object, ...]) -> int:
    return sum(len(value) for value in values if isinstance(value, (str, bytes)))


def _works_off(group: Repetition) -> bool:
    return group.pauses > _FEW_PAUSES and group.pauses * _RUNS_PER_PAUSE >= group.count


def loader_of(frame: FrameType | None, call_site: CallSite | None) -> Loader | None:
    """
    Who runs a statement on the application's behalf: looks at the frames between the query and the application.

    Args:
        frame: Where to look from.
        call_site: The application's line, where the search ends.

    Returns:
        The loader; None when there is none, so that the application runs it by hand.
    """
    found: Loader | None = None
    for _ in range(_SEARCH):
        if frame is None:
            break
        if call_site is not None and frame.f_code is call_site[0]:
            know_template(frame)
            break
        loader = KNOWN.loader_of(frame.f_code)
        if loader is not None and (found is None or loader.name in found.called_by):
            found = loader
        frame = frame.f_back
    return found
