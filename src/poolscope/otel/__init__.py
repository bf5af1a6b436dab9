"""The only place where telemetry leaves the process."""
