"""
The dictionary: every metric, span, event and attribute that poolscope emits.

Instruments, dashboards, alerts, documentation and tests take their names from here; none of them types one again.
Names that start with ``db.``, ``server.``, ``code.`` or ``error.`` are those of the OpenTelemetry semantic conventions
(their schema is `SCHEMA_URL`); names outside the conventions carry the prefix ``poolscope.``. Units are UCUM.
"""

from poolscope.semconv.attributes import *  # noqa: F403 - one dictionary, in several files
from poolscope.semconv.events import *  # noqa: F403
from poolscope.semconv.metrics import *  # noqa: F403
from poolscope.semconv.spans import *  # noqa: F403
