"""What is known of libraries by the word of the adapters and frameworks that hook them. Core itself names none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import CodeType, FrameType

    from poolscope.types import LibraryObject


@dataclass(frozen=True)
class Loader:
    """
    A part of an ORM that runs statements on the application's behalf: the fix of a repetition depends on it.

    Args:
        name: What it is called in findings, after "as a".
        file: How its file's name ends.
        functions: Which functions of the file; all when left out.
        fix: What to do about what it repeats.
        fixes: The same for statements that write, by their first word.
        called_by: Names of loaders that call it: where one of them is further out, that one loads.
    """

    name: str
    file: str
    fix: str
    functions: tuple[str, ...] = ()
    fixes: Mapping[str, str] = field(default_factory=dict)
    called_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """
    The group that a task is in, which is not over before the task is.

    Args:
        parent: The task that opened the group.
        end: The future that the parent awaits at the group's end; None while it does something else.
    """

    parent: LibraryObject
    end: LibraryObject = None


@dataclass(frozen=True)
class Job:
    """
    A function that runs one job in a thread.

    Args:
        file: How its file's name ends.
        function: Its name.
        future: Its local variable, and the attributes of that, which lead to the future that is done with the job.
    """

    file: str
    function: str
    future: tuple[str, ...]


@dataclass(frozen=True)
class Waits:
    """
    How tasks and threads wait for one another by the means of a library.

    Args:
        group_of: The group of a task; None for a task in none.
        jobs: What runs jobs in threads.
        submitters: Coroutine functions that submit a job and await it: the file and name of each, and the local
            variable that is the job's future, where it is not an executor's.
        exchanges: How the names of its files end by which tasks hand something to one another.
        events: The same where only the caller says what it waits for: events, locks, queues.
        pauses: The same of what lets other tasks run meanwhile.
    """

    group_of: Callable[[LibraryObject], Group | None] | None = None
    jobs: tuple[Job, ...] = ()
    submitters: tuple[tuple[str, str, str], ...] = ()
    exchanges: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    pauses: tuple[str, ...] = ()


_OF_PYTHON: Final = Waits(
    jobs=(Job("/concurrent/futures/thread.py", "run", ("self", "future")),),
    submitters=(("/asyncio/threads.py", "to_thread", ""),),
    events=("/asyncio/locks.py", "/asyncio/queues.py"),
    pauses=("/asyncio/tasks.py",),
)


class Switches(Protocol):
    """Stacks that go on elsewhere: a library runs code on a stack of its own, and other code waits for it."""

    def outwards(self, stack: LibraryObject) -> tuple[LibraryObject, FrameType | None]:
        """
        The stack that another was started from, and the frame that waits there.

        Args:
            stack: What this function returned before; None for the stack that is running.

        Returns:
            Both None where there is no other.
        """

    def inwards(self, frame: FrameType) -> FrameType | None:
        """The innermost frame of the stack that a coroutine's frame waits for; None where it waits for none."""


class _OneStack:
    def outwards(self, stack: LibraryObject) -> tuple[LibraryObject, FrameType | None]:  # noqa: ARG002 - the interface
        return None, None

    def inwards(self, frame: FrameType) -> FrameType | None:  # noqa: ARG002
        return None


# Names of modules of which is remembered whether they carry queries.
_MOST_MODULES: Final = 10_000


class Libraries:
    """All that was declared."""

    def __init__(self) -> None:
        self.switches: Switches = _OneStack()
        self.loops: tuple[str, ...] = ()
        self.loaders: dict[str, Loader] = {}
        self.templates: tuple[str, ...] = ()
        self.worker_queues: tuple[tuple[str, str], ...] = ()
        self.waits: tuple[Waits, ...] = (_OF_PYTHON,)
        self.servers: tuple[str, ...] = ()
        # Generated code has no module, and the standard library's context managers want nothing by themselves.
        self._carriers = {"", "poolscope", "contextlib"}  # modules and packages
        self._carries: dict[str, bool] = {}

    def carries(self, module: str) -> bool:
        """Whether a module only carries queries, between the pool and whoever wants something of the database."""
        known = self._carries.get(module)
        if known is None:
            if len(self._carries) >= _MOST_MODULES:
                self._carries.clear()
            known = self._carries[module] = is_within(module, self._carriers)
        return known

    def loader_of(self, code: CodeType) -> Loader | None:
        """The loader that a function is part of."""
        file = code.co_filename.replace("\\", "/")
        for loader in self.loaders.values():
            if file.endswith(loader.file) and (not loader.functions or code.co_name in loader.functions):
                return loader
        return None

    def know(
        self,
        packages: Iterable[str] = (),
        *,
        loops: Iterable[str] = (),
        loaders: Iterable[Loader] = (),
        switches: Switches | None = None,
        templates: Iterable[str] = (),
        worker_queues: Iterable[tuple[str, str]] = (),
        waits: Waits | None = None,
        servers: Iterable[str] = (),
    ) -> None:
        """
        A library is declared.

        Args:
            packages: Names of its packages and modules that carry queries and want none.
            loops: How the names of its files end that run the jobs of others, as an event loop does.
            loaders: Its loaders.
            switches: How its stacks go on elsewhere.
            templates: Names of the globals by which code that it compiled from a template refers to that; the template
                has `debug_info`, pairs of a line of its own and the code's, in order.
            worker_queues: Functions in which a task waits for a worker thread to become free: how the name of its file
                ends, and its name.
            waits: How its tasks and threads wait for one another.
            servers: Names of its packages and modules whose functions run for as long as the process does, and call the
                application for each request, task, test or line of input.
        """
        self._carriers.update(packages)
        self._carries.clear()
        self.loops = tuple(dict.fromkeys((*self.loops, *loops)))
        self.loaders.update({loader.name: loader for loader in loaders})
        self.templates = tuple(dict.fromkeys((*self.templates, *templates)))
        self.worker_queues = tuple(dict.fromkeys((*self.worker_queues, *worker_queues)))
        self.servers = tuple(dict.fromkeys((*self.servers, *servers)))
        if switches is not None:
            self.switches = switches
        if waits is not None:
            self.waits = tuple(dict.fromkeys((*self.waits, waits)))


def is_in(code: CodeType, *files: str) -> bool:
    """Whether a function is in a file whose name ends as one of these does, which have slashes on every system."""
    return code.co_filename.replace("\\", "/").endswith(files)


def is_within(module: str, packages: Iterable[str]) -> bool:
    """Whether a module is one of these, or inside one of them."""
    return any(module == package or (package and module.startswith(f"{package}.")) for package in packages)


#: What the hooks of this process declared.
KNOWN = Libraries()
