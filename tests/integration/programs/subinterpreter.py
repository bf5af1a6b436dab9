"""
Instrument in a subinterpreter, and end it.

Args:
    kind: ``legacy``, which shares the interpreter's lock and may load any module, or ``isolated``.
"""

import importlib
import sys

WITHIN = f"""
import logging, sys
sys.path[:] = {sys.path!r}
logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stdout)
from poolscope.instrumentor import PoolscopeInstrumentor
from poolscope.hooks.patching import active_patches
import threading
instrumentor = PoolscopeInstrumentor()
instrumentor.instrument()
print(f"{{len(active_patches())}} patches, {{threading.active_count()}} threads, session {{instrumentor._session}}")
instrumentor.uninstrument()
print("done", flush=True)
"""


def new() -> tuple[object, object]:
    """A subinterpreter, and what runs code in it."""
    try:
        interpreters = importlib.import_module("_interpreters")
    except ImportError:
        interpreters = importlib.import_module("_xxsubinterpreters")
        made = interpreters.create(isolated=sys.argv[1] == "isolated")
        return made, interpreters.run_string
    return interpreters.create(sys.argv[1]), interpreters.exec


interpreter, run = new()
failed = run(interpreter, WITHIN)
assert failed is None, failed
(sys.modules.get("_interpreters") or sys.modules["_xxsubinterpreters"]).destroy(interpreter)

from poolscope.instrumentor import PoolscopeInstrumentor  # noqa: E402 - the main one comes after it

main = PoolscopeInstrumentor()
main.instrument()
print(f"in the main interpreter: {main._session is not None}")
main.uninstrument()
