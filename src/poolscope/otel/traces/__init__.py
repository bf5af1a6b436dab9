"""Spans: of checkouts and holds, and what is added to the spans around them."""
