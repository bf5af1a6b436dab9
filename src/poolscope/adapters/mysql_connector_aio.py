"""
mysql-connector's asyncio `MySQLConnectionPool`.

Like the sync one, but that its pings, connects and resets are awaited. A checkout that is cancelled meanwhile loses the
connection that it had taken out.
"""

from __future__ import annotations

from typing import Final

from poolscope.adapters.mysql_connector import MysqlConnectorAdapter
from poolscope.adapters.mysql_connector_points import points_of


class MysqlConnectorAioAdapter(MysqlConnectorAdapter):
    """Hooks mysql-connector's asyncio pool."""

    name, module, versions = "mysql-connector-aio", "mysql.connector.aio.pooling", ">=9.4,<27"
    points = points_of("mysql.connector.aio")


ADAPTER: Final = MysqlConnectorAioAdapter()
