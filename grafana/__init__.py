"""
Dashboards, and what they and the alerts share: written in Python, generated as JSON and YAML beside it.
"""
