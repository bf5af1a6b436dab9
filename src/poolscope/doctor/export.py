"""Whether telemetry leaves the process: the SDK, who configures it, and the exporters that the environment names."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from poolscope.adapters.address import server_of
from poolscope.doctor.installation import installed
from poolscope.doctor.model import Remark, Status
from poolscope.names import safe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from poolscope.doctor.model import Environment

_SIGNALS: Final = ("metrics", "traces", "logs")
# What opentelemetry-distro sets where nothing is set.
_DISTRO_EXPORTER: Final = "otlp"
_DEFAULT_PROTOCOL: Final = "grpc"
# The entry point that the SDK looks for, by the protocol of `otlp`.
_BY_PROTOCOL: Final = {
    "grpc": "otlp_proto_grpc",
    "http/protobuf": "otlp_proto_http",
}
_PACKAGES: Final = {
    "otlp_proto_grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "otlp_proto_http": "opentelemetry-exporter-otlp-proto-http",
    "otlp_json_file": "opentelemetry-exporter-otlp-json-file",
    "prometheus": "opentelemetry-exporter-prometheus",
}


def export(environment: Environment) -> Iterator[Remark]:
    """The SDK and its exporters. What the application configures in its own code is not seen from here."""
    environ = environment.environ
    sdk = installed("opentelemetry-sdk")
    if not sdk:
        text = "opentelemetry-sdk is not installed: poolscope collects nothing"
        yield Remark(Status.PROBLEM, text, "Install it: pip install 'poolscope[sdk]'")
        return
    yield Remark(Status.OK, f"opentelemetry-sdk {sdk}", facts={"opentelemetry-sdk": sdk})
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield Remark(Status.PROBLEM, "OTEL_SDK_DISABLED turns the SDK off", "Unset OTEL_SDK_DISABLED.")
    yield from _configurator()
    has_distro = bool(installed("opentelemetry-distro"))
    named = {signal: _named(signal, environ, has_distro) for signal in _SIGNALS}
    for signal, names in named.items():
        yield from _exporters(signal, names, environ)
    if not any(named.values()):
        text = (
            "No exporter is configured by the environment: unless the application configures one, no telemetry is sent"
        )
        yield Remark(Status.WARNING, text, "Set OTEL_METRICS_EXPORTER, OTEL_TRACES_EXPORTER and OTEL_LOGS_EXPORTER.")


def _configurator() -> Iterator[Remark]:
    configurators = [point.value for point in entry_points(group="opentelemetry_configurator")]
    if configurators:
        text = f"opentelemetry-instrument configures the SDK by {', '.join(sorted(configurators))}"
        yield Remark(Status.OK, text)
    else:
        text = "No package configures the SDK: the application has to, in its own code"
        fix = "If it does not, install a distribution: pip install opentelemetry-distro"
        yield Remark(Status.WARNING, text, fix)


def _named(signal: str, environ: Mapping[str, str], has_distro: bool) -> list[str]:
    value = environ.get(_variable(signal), "").strip() or (_DISTRO_EXPORTER if has_distro else "")
    return [] if value.lower() == "none" else [name.strip() for name in value.split(",") if name.strip()]


def _exporters(signal: str, names: list[str], environ: Mapping[str, str]) -> Iterator[Remark]:
    if not names:
        yield Remark(Status.OK, f"{signal}: no exporter", facts={signal: ""})
    for name in names:
        point = _entry_point_of(name, signal, environ)
        if point and list(entry_points(group=f"opentelemetry_{signal}_exporter", name=point)):
            where = _endpoint(signal, point, environ)
            yield Remark(Status.OK, f"{signal}: {point}{where}", facts={signal: point})
            continue
        package = _PACKAGES.get(point, "")
        install = f"Install it (pip install {package})" if package else "Install the package that has it"
        is_set = bool(environ.get(_variable(signal), "").strip())
        text = f"{signal}: no installed package has the exporter {safe(point or repr(name))}"
        if is_set:
            fix = f"{install}, or set {_variable(signal)} to another one."
            yield Remark(Status.PROBLEM, text, fix, {signal: point})
        else:  # opentelemetry-distro's default counts under opentelemetry-instrument alone
            fix = f"{install}, or set OTEL_EXPORTER_OTLP_PROTOCOL or {_variable(signal)}."
            yield Remark(Status.WARNING, f"{text}, the default of opentelemetry-distro", fix, {signal: point})


def _entry_point_of(name: str, signal: str, environ: Mapping[str, str]) -> str:
    if name != "otlp":
        return name
    return _BY_PROTOCOL.get(_otlp("PROTOCOL", signal, environ) or _DEFAULT_PROTOCOL, "")


def _endpoint(signal: str, point: str, environ: Mapping[str, str]) -> str:
    given = _otlp("ENDPOINT", signal, environ)
    if not point.startswith("otlp_proto") or not given:
        return ""
    where = server_of(given)  # a URL may contain a login, which must not be printed
    return f" to {where}" if where is not None else ""


def _otlp(name: str, signal: str, environ: Mapping[str, str]) -> str:
    own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", "").strip()
    return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()


def _variable(signal: str) -> str:
    return f"OTEL_{signal.upper()}_EXPORTER"
