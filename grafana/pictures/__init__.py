"""The dashboards with data from a Prometheus, drawn by Grafana's own component library: live, and as pictures."""
