"""
mysql-connector's asyncio `MySQLConnectionPool`.

Like its elder, but that what is lent and given back is awaited: a ping, a new connection, the reset of the session. An
ask that is cancelled meanwhile loses the connection that it had taken out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.common import ASK
from poolscope.adapters.mysql_connector import MysqlConnectorAdapter, give_back
from poolscope.core.types import LibraryObject, override

if TYPE_CHECKING:
    from collections.abc import Callable


class MysqlConnectorAioAdapter(MysqlConnectorAdapter):
    """
    Hooks mysql-connector's asyncio pool.
    """

    name = "mysql-connector-aio"
    module = "mysql.connector.aio.pooling"
    versions = ">=9.4,<27"
    library_modules = ("mysql",)
    within = "aio."

    @override
    def queued(self, pool: LibraryObject) -> LibraryObject:
        return pool._cnx_queue._queue

    def _make_get(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter, ask = self, self.ask

        async def get_connection(self: LibraryObject) -> LibraryObject:
            lease = ask(self, self.__dict__)
            if lease is None:
                return await original(self)
            outer = ASK.get()
            ASK.set(lease)
            lease.carrier = self
            try:
                proxy = await original(self)
            except BaseException as error:
                adapter.not_lent(self, lease, error)
                raise
            finally:
                lease.carrier = None
                ASK.set(outer)
            adapter.lend(self, proxy, lease)
            return proxy

        return get_connection

    def _make_add(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        async def add_connection(self: LibraryObject, cnx: LibraryObject = None) -> LibraryObject:
            ledger = adapter._ledger
            if cnx or ledger is None:
                return await original(self, cnx)
            began = ledger.now()
            result = await original(self, cnx)
            adapter.added(self, began)
            return result

        return add_connection

    def _make_remove(self, original: Callable[..., Any]) -> Callable[..., Any]:
        adapter = self

        async def _remove_connections(self: LibraryObject) -> LibraryObject:
            count = await original(self)
            adapter.removed(self, count)
            return count

        return _remove_connections

    def _make_close(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def close(self: LibraryObject) -> LibraryObject:
            give_back(self)
            return await original(self)

        return close


ADAPTER: Final = MysqlConnectorAioAdapter()
