"""
What of an exception may be logged or looked at: its type, where it was raised, and its plain texts; and whose it is.

A message of somebody else's may hold a password, and a ``__str__`` of somebody else's may raise, block or take a lock.
"""

from __future__ import annotations

import inspect
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

# The innermost frames that are named: a recursion has a thousand.
_MOST_FRAMES: Final = 20
# Texts of one exception that are looked at.
_MOST_TEXTS: Final = 8
_QUALIFIED_NAME: Final = type.__dict__["__qualname__"]
_ARGUMENTS: Final = vars(BaseException)["args"]


def type_and_place(error: BaseException | None) -> str:
    """
    An exception's type, and the frames that it came through, innermost first; never its message.

    Returns:
        Such as ``KeyError at a.py:12 in f, from b.py:34 in g``. Neither a method of the exception nor one of its class
        runs.
    """
    if error is None:
        return "no exception"
    frames: deque[str] = deque(_frames(error.__traceback__), maxlen=_MOST_FRAMES)
    if not frames:
        return type_of(error)
    return f"{type_of(error)} at {', from '.join(reversed(frames))}"


def type_of(error: BaseException) -> str:
    """The name of an exception's class, as its ``class`` statement has it."""
    return str(_QUALIFIED_NAME.__get__(type(error)))


def texts_of(error: BaseException) -> Iterator[str]:
    """
    The texts in an exception's arguments, for those who look for a server's words in them: they are not to be kept.

    An argument that holds a text as its message, as Oracle's drivers have it, or in a dict, as pg8000 has it, counts.
    """
    for argument in _ARGUMENTS.__get__(error)[:_MOST_TEXTS]:
        if type(argument) is str:
            yield argument
        elif type(argument) is dict:
            yield from (value for value in tuple(argument.values())[:_MOST_TEXTS] if type(value) is str)
        else:
            message = getattr(argument, "__dict__", {}).get("message")
            if type(message) is str:
                yield message


def raised_by_a_signal(error: BaseException | None) -> bool:
    """Whether an exception, which was caught, is what a signal handler raised, or another greenlet threw in here."""
    # A handler is called with the frame that it interrupts (Python's `signal.signal`): in the traceback it follows it.
    # So no function of ours is given the frame that calls it.
    step = error.__traceback__ if error is not None else None
    interrupted = None
    while step is not None:
        if interrupted is not None and _was_given(step.tb_frame, interrupted):
            return True
        interrupted, step = step.tb_frame, step.tb_next
    return interrupted is not None and _was_thrown(error, interrupted)


def _was_thrown(error: BaseException | None, innermost: FrameType) -> bool:
    # It comes out of the function in which its greenlet gave way: ``switch`` in eventlet's hub, ``_greenlet_switch`` in
    # gevent's. Their timeouts raise whatever error the application wants; what is wrong with the switch itself is of
    # their own types.
    if not innermost.f_code.co_name.endswith("switch"):
        return False
    hub = str(innermost.f_globals.get("__name__", ""))
    return type(error).__module__.partition(".")[0] != hub.partition(".")[0]


def _was_given(frame: FrameType, interrupted: FrameType) -> bool:
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount]
    given = [frame.f_locals.get(name) for name in names]
    if code.co_flags & inspect.CO_VARARGS:
        given.extend(frame.f_locals.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ()))
    return any(one is interrupted for one in given)


def _frames(step: TracebackType | None) -> Iterator[str]:
    while step is not None:
        code = step.tb_frame.f_code
        yield f"{code.co_filename}:{step.tb_lineno} in {code.co_name}"
        step = step.tb_next
