"""Runnable examples: the shop, and the lab that it runs in."""
