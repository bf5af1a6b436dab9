"""Flask: ``Flask.__call__``, outside of whatever middleware ``wsgi_app`` is wrapped in, also from before we came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.frameworks.naming import matched
from poolscope.frameworks.wsgi import make_call

if TYPE_CHECKING:
    from types import ModuleType

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook
    from poolscope.types import LibraryObject


class FlaskFramework:
    """Requests to Flask applications."""

    name = "flask"
    module = "flask"
    #: Jinja is what Flask renders with, and has no hook of its own: declared here, it is known wherever it is used.
    templates = ("__jinja_template__",)

    def __init__(self) -> None:
        self._flask: Any = None

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        application = module.app.Flask
        patcher.require(application, ("__call__", "dispatch_request"))
        patcher.replace(application, "__call__", make_call(pool_registry))
        self._flask = module
        try:
            module.request_started.connect(self._request_started)
        except RuntimeError:  # before 2.3 signals need blinker, which may be absent: routes stay unknown
            guard.caught("flask.signals")

    def release(self) -> None:
        """Disconnect the receivers of signals."""
        flask, self._flask = self._flask, None
        if flask is not None:
            flask.request_started.disconnect(self._request_started)

    def _request_started(self, _: LibraryObject, **__: LibraryObject) -> None:
        flask = self._flask  # none, where poolscope stops amid the signal
        try:
            rule = flask.request.url_rule if flask is not None else None
            if rule is not None:
                matched(rule.rule)
        except Exception:  # noqa: BLE001 - ours
            guard.caught("flask.route")


FRAMEWORKS: Final[tuple[Hook, ...]] = (FlaskFramework(),)
