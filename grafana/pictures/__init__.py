"""
The dashboards, drawn by Grafana's own component library with data from a Prometheus: live, and as pictures.
"""
