"""The work scope: when the running code enters a unit of work, leaves it, enters it again, and ends it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from poolscope.core.guard import guard
from poolscope.core.work import CURRENT_UNIT

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextvars import ContextVar, Token

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.core.work import UnitOfWork, Units

_Result = TypeVar("_Result")


class WorkScope:
    """
    One unit of work, and whether the running code is inside it.

    Of a response that is streamed, or of a generator, only the steps are inside; between them runs the server's code.

    Args:
        units: Where the unit of work begins and ends.
        kind: `http`, `task`, `rpc` or `job`.
        name: A route template or task name.
    """

    __slots__ = ("_token", "_units", "unit")

    def __init__(self, units: Units, kind: str, name: str) -> None:
        self._units = units
        self._token: Token[UnitOfWork | None] | None = None
        self.unit = units.begin(kind, name)

    # An error of ours ends in each of these: they are called from hooks in between what is the application's. An
    # interrupt passes, and may come before the first step: the hooks leave or end once more then, which is why neither
    # minds to be called again.

    def enter(self) -> None:
        """What runs from here on belongs to the unit of work."""
        try:
            self._enter()
        except BaseException as error:
            with contextlib.suppress(Exception):
                self._leave()
            if not isinstance(error, Exception):
                raise
            guard.caught("unit_of_work.enter")

    def leave(self) -> None:
        """What runs from here on belongs to what it belonged to before."""
        try:
            self._leave()
        except Exception:  # noqa: BLE001 - ours
            guard.caught("unit_of_work.leave")

    def read(self, *, sent: bool = True) -> None:
        """
        The response has been read to its end. Its server closes it next, and what runs then is part of the unit of work
        too. If it is left open, the unit ends when that is collected, when the next one begins here, or after some
        seconds.

        Args:
            sent: Whether the server knows that this was all. Otherwise it may be sending the last part for long, and a
                connection that the unit of work holds meanwhile is not left behind.
        """
        try:
            if not self.unit.ended:
                self._units.unclosed[self] = (self._units.now(), get_ident(), sent)
        except Exception:  # noqa: BLE001 - ours
            guard.caught("unit_of_work.read")

    def end(self) -> None:
        """Leave and end the unit of work."""
        try:
            self._units.unclosed.pop(self, None)
            self._leave()
            self._units.end(self.unit)
        except Exception:  # noqa: BLE001 - ours
            guard.caught("unit_of_work.end")
        finally:
            self.unit.ended = True  # in any case: what runs here next is no part of it

    def _enter(self) -> None:
        self._token = CURRENT_UNIT.set(self.unit)

    def _leave(self) -> None:
        token = self._token
        if token is None:
            return
        try:
            CURRENT_UNIT.reset(token)
        except (ValueError, RuntimeError) as error:  # entered in another context, as a thread's or a task's; or done
            if CURRENT_UNIT.get() is self.unit:
                CURRENT_UNIT.set(None)
            if isinstance(error, ValueError):
                return  # it is still to be left there
        self._token = None

    def end_in_collection(self) -> None:
        """
        The same where the garbage collector may be the caller: the span around it is not touched, for its SDK may be
        what the collection interrupted. It gets the figures when it ends.
        """
        self.unit.span = None
        self.end()


class Unclosed:
    """
    What stands for a response, or a part of it, until that is closed: if it is left open, the unit of work ends with
    it.

    Args:
        work_scope: The unit of work; the running code has left it.
    """

    def __init__(self, work_scope: WorkScope) -> None:
        self._work_scope = work_scope

    def __del__(self) -> None:
        work_scope: WorkScope | None = self.__dict__.get("_work_scope")
        if work_scope is None or work_scope.unit.ended or sys.is_finalizing():
            return
        try:
            try:
                work_scope.enter()
                self.__dict__.clear()  # a generator that was not read to its end runs its last part now
            finally:
                work_scope.end_in_collection()
        except BaseException:
            work_scope.end_in_collection()  # again, if that was interrupted
            raise


#: Begins a unit of work and enters it; None where none began.
Begins = Callable[[], WorkScope | None]


def begin(pool_registry: PoolRegistry, kind: str, name: str, *, outermost: bool = True) -> WorkScope | None:
    """
    Begin a unit of work and enter it.

    Args:
        pool_registry: The pool registry that it belongs to.
        kind: `http`, `task`, `rpc` or `job`.
        name: A route template or task name.
        outermost: Whether it begins only where the running code is in no other one.

    Returns:
        None where none began: without a configured SDK, inside another one, or through an error of ours.
    """
    work_scope = None
    try:
        if pool_registry.dormant and pool_registry.still_dormant():
            return None
        if outermost and current() is not None:
            return None
        if pool_registry.units.unclosed:
            pool_registry.units.end_unclosed_here()
        work_scope = WorkScope(pool_registry.units, kind, name)
        work_scope.enter()
        return work_scope  # noqa: TRY300 - an interrupt may come here, too
    except BaseException as error:
        if work_scope is not None:
            work_scope.end()
        if not isinstance(error, Exception):
            raise
        guard.caught("unit_of_work.begin")
        return None


def inside(begins: Begins, call: Callable[[], _Result]) -> _Result:
    """
    Call something as a unit of work, which is over whatever interrupts it.

    Args:
        begins: Begins the unit of work.
        call: The application's or a library's.

    Returns:
        What that returned.
    """
    work_scope = None
    try:
        try:
            work_scope = begins()
            return call()
        finally:
            if work_scope is not None:
                work_scope.end()
    except BaseException:
        if work_scope is not None:
            work_scope.end()  # again, if that was interrupted
        raise


async def inside_async(begins: Begins, call: Callable[[], Awaitable[_Result]]) -> _Result:
    """The same for what is awaited; where that is dropped half-way, the garbage collector may be the caller."""
    work_scope = None
    try:
        try:
            work_scope = begins()
            return await call()
        except GeneratorExit:
            if work_scope is not None:
                work_scope.end_in_collection()
            raise
        finally:
            if work_scope is not None:
                work_scope.end()
    except BaseException:
        if work_scope is not None:
            work_scope.end()
        raise


def finish(work_scope: WorkScope, close: Callable[[], object] | None) -> None:
    """
    Close a response as the last part of its unit of work, which is over whatever interrupts it.

    Args:
        work_scope: The unit of work.
        close: The application's or a library's; None where there is nothing to close.
    """
    try:
        try:
            work_scope.enter()
            if close is not None:
                close()
        finally:
            work_scope.end()
    except BaseException:
        work_scope.end()  # again, if that was interrupted
        raise


def reset(variable: ContextVar[Any], token: Token[Any] | None) -> None:
    """
    Give a context variable back the value that it had.

    Args:
        variable: The variable.
        token: What setting it returned; None where that was not reached. It may be another context's, or used already.
    """
    if token is not None:
        with contextlib.suppress(ValueError, RuntimeError):
            variable.reset(token)


def current() -> UnitOfWork | None:
    """The unit of work that the running code belongs to; None when that has ended."""
    unit = CURRENT_UNIT.get()
    return unit if unit is not None and not unit.ended else None
