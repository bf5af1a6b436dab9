// Read by the library before its first component; a file of its own, for the page runs no script that stands in it.
window.__grafana_public_path__ = '/static/';
