"""How often the cause is right: services with planted causes on a real PostgreSQL, and what poolscope says of them."""
