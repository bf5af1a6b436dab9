"""Fill an empty database: ``python -m examples.shop.seed``. A database that has the tables already is left as it is."""

from __future__ import annotations

from sqlalchemy import Engine, NullPool, create_engine, inspect, text

from examples.shop.models import Base
from examples.shop.settings import Settings

USERS = 200
POSTS_PER_USER = 10
ORDERS = 20_000

_USERS = """
    INSERT INTO users (name, email)
    SELECT 'user ' || n, 'user' || n || '@shop.example' FROM generate_series(1, :users) n
"""
_POSTS = """
    INSERT INTO posts (user_id, title)
    SELECT u.id, 'post ' || n || ' of ' || u.name FROM users u, generate_series(1, :posts) n
"""
_ORDERS = """
    INSERT INTO orders (user_id, total_cents, status, created_at)
    SELECT 1 + n % :users, 100 + n % 9900, 'paid', now() - n * interval '5 minutes' FROM generate_series(1, :orders) n
"""


def seed(engine: Engine) -> None:
    """Create the tables and their rows, once."""
    if inspect(engine).has_table("orders"):
        return
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(text(_USERS), {"users": USERS})
        connection.execute(text(_POSTS), {"posts": POSTS_PER_USER})
        connection.execute(text(_ORDERS), {"users": USERS, "orders": ORDERS})


def main() -> None:
    """Fill the database that ``SHOP_DSN`` names."""
    engine = create_engine(Settings.from_environment().sqlalchemy_url, poolclass=NullPool)
    seed(engine)
    engine.dispose()


if __name__ == "__main__":
    main()
