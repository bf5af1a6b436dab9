"""What the demo and the tests share: a real PostgreSQL and other servers, started here and stopped again."""
