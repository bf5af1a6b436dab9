"""
Dashboards and alerts, written in Python; the JSON and YAML that Grafana and Prometheus read are
generated from it.
"""
