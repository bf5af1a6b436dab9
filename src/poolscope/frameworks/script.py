"""
A script's main program: what runs in the main thread, if that is the application's and ends.

It is none where a server, a worker, a test runner or a person at a prompt calls the application, or where the program
that runs is a library's, as gunicorn's and celery's are.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.execution import NO_THREAD, running_thread
from poolscope.core.guard import guard
from poolscope.core.lazy_jobs import LazyJob
from poolscope.core.libraries import KNOWN, is_within
from poolscope.frameworks.naming import name_of_runner

if TYPE_CHECKING:
    from types import FrameType, ModuleType

    from poolscope.core.execution import ThreadReference
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook

_DEEPEST: Final = 1000
_MAIN: Final = "__main__"
# What a program is called that has no file, by the first of its arguments.
_WITHOUT_FILE: Final = {"-c": "<string>", "-": "<stdin>", "": "<stdin>"}


class ScriptFramework:
    """The main program."""

    name = "script"
    module = "threading"
    # Those that have hooks of their own are declared with those.
    servers = (
        *("hypercorn", "daphne", "granian", "cheroot", "socketserver", "werkzeug.serving", "aiohttp.web", "sanic"),
        *("tornado", "twisted", "gevent", "eventlet", "huey", "kombu", "kopf"),
        *("pytest", "_pytest", "unittest", "nose2", "locust", "code", "IPython", "ipykernel", "bpython", "streamlit"),
    )

    def __init__(self) -> None:
        self._job: LazyJob | None = None
        self._thread: ThreadReference = NO_THREAD

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:  # noqa: ARG002 - the interface
        """Let what the main thread does from here on be a job."""
        if threading.current_thread() is threading.main_thread():
            job = LazyJob(pool_registry.units, lambda: name_of_main(pool_registry, sys._getframe(1)))  # noqa: SLF001
            self._thread = running_thread().reference
            self._job = pool_registry.units.main = running_thread().job = job

    def release(self) -> None:
        """Let it be none any more, whichever thread this is."""
        job, self._job = self._job, None
        main = self._thread()
        if job is not None and main is not None and main.job is job:
            main.job = None


def name_of_main(pool_registry: PoolRegistry, frame: FrameType | None) -> str | None:
    """
    What the main program is called.

    Args:
        pool_registry: Knows what is the application's.
        frame: Where it checks a connection out.

    Returns:
        The script's name without its path, or the module's; of a child process of `multiprocessing` the target's
        qualified name. None where it is no script's work.
    """
    processes = sys.modules.get("multiprocessing.process")
    process: Any = processes.current_process() if processes is not None else None
    if process is not None and processes is not None and processes.parent_process() is not None:
        name = name_of_runner(pool_registry, process, processes.BaseProcess, vars(process).get("_target"))
        util = sys.modules.get("multiprocessing.util")
        if name is not None and util is not None:  # it ends without Python's exit handlers
            util.Finalize(None, guard.run, ("script.last_run", pool_registry.last_run, None), exitpriority=0)
        return name
    main: Any = sys.modules.get(_MAIN)
    if main is None or hasattr(sys, "ps1") or sys.flags.interactive or _is_served(frame):
        return None
    file = getattr(main, "__file__", None)
    if file is None:
        return _WITHOUT_FILE.get(sys.argv[0] if sys.argv else "")
    if not pool_registry.is_of_application(file):
        return None
    spec = getattr(main, "__spec__", None)
    module = str(spec.name) if spec is not None else _MAIN
    return module.removesuffix(f".{_MAIN}") if module != _MAIN else Path(file).name


def _is_served(frame: FrameType | None) -> bool:
    for _ in range(_DEEPEST):
        if frame is None:
            return False
        if is_within(str(frame.f_globals.get("__name__", "")), KNOWN.servers):
            return True
        frame = frame.f_back
    return True


FRAMEWORKS: Final[tuple[Hook, ...]] = (ScriptFramework(),)
