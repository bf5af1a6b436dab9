"""
Boundaries: one file for each framework that begins and ends units of work.
"""
