"""SQLAlchemy's pools: 1.4, 2.0 and 2.1, sync and async, every pool class."""

from typing import Final

from poolscope.adapters.sqlalchemy.adapter import ADAPTER

__all__: Final = ["ADAPTER"]
