"""An interrupt before one instruction of a function, as of a signal that comes just then."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def interrupt(nth: int, call: Callable[[], object], *functions: Callable[..., object]) -> bool:
    """
    Call something, and raise `KeyboardInterrupt` at one instruction.

    Args:
        nth: Before which instruction of those, from 1 on.
        call: What is called.
        functions: Those whose instructions count; plain ones of Python.

    Returns:
        Whether there were as many.
    """
    codes = {function.__code__ for function in functions}
    left = nth

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code not in codes:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return left <= 0
