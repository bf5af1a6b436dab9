"""What is around the running code: a recorded span, or the wish not to be instrumented."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace

from poolscope.core.pool import SUPPRESSED, UNRECORDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.types import LibraryObject

try:  # these constants moved between releases of the API; their values are what others look up
    from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as _SUPPRESS
except ImportError:  # pragma: no cover - older or newer API
    _SUPPRESS = "suppress_instrumentation"
try:  # the key of the span in a context: `get_current_span` costs three times as much as looking it up
    from opentelemetry.trace.propagation import _SPAN_KEY as _SPAN
except ImportError:  # pragma: no cover - a newer API
    _SPAN = ""
_OLD_SUPPRESS: Final = "suppress_instrumentation"


def _current_context() -> Callable[[], Any]:
    # The API's `get_current` is two calls around the lookup of a context variable, which is all that is wanted; unless
    # the application has another runtime context (`OTEL_PYTHON_CONTEXT`).
    runtime = getattr(otel_context, "_RUNTIME_CONTEXT", None)
    variable = getattr(runtime, "_current_context", None)
    if type(runtime).__name__ == "ContextVarsRuntimeContext" and isinstance(variable, ContextVar):
        get: Callable[[], Any] = variable.get
        return get
    return otel_context.get_current


_current: Final = _current_context()


def ambient() -> LibraryObject:
    """
    Look at the context, once for all questions: this runs at each checkout.

    Returns:
        The span around the running code if it is recorded; `UNRECORDED` if there is one that is not; `SUPPRESSED` where
        the application asked not to be instrumented (`opentelemetry.instrumentation.utils.suppress_instrumentation`);
        None when there is nothing.
    """
    context = _current()
    if not context:
        return None
    if context.get(_SUPPRESS) or context.get(_OLD_SUPPRESS):
        return SUPPRESSED
    span: Any = context.get(_SPAN) or trace.get_current_span(context)
    if span.is_recording():
        return span
    around = span.get_span_context()
    if not around.is_valid:
        return None
    return span if around.trace_flags.sampled else UNRECORDED
