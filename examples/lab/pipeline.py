"""
The real Collector, Prometheus and Alertmanager as child processes on the loopback address, with the committed files.

`make pipeline-build` builds the Collector and Prometheus 3; Alertmanager, and a Prometheus with web pages, are Debian's
(``prometheus-alertmanager``, ``prometheus``). Each runs with the file of ``collector-config``; only addresses differ.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from psycopg import sql

from examples.lab.postgres import Postgres
from examples.lab.processes import LOOPBACK, Child, answers, free_port
from tools.pipeline_build import find_binaries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

ROOT: Final = Path(__file__).resolve().parents[2]
CONFIG: Final = ROOT / "collector-config"
MONITOR: Final = "poolscope_monitor"
START_SECONDS: Final = 60.0
PORT_VARIABLES: Final = {
    "otlp_http": "POOLSCOPE_OTLP_HTTP_PORT",
    "otlp_grpc": "POOLSCOPE_OTLP_GRPC_PORT",
    "processes": "POOLSCOPE_PROCESSES_PORT",
    "counted": "POOLSCOPE_COUNTED_PORT",
    "self": "POOLSCOPE_SELF_PORT",
    "health": "POOLSCOPE_HEALTH_PORT",
}
# What has no default in the files; none of it is a secret of anybody's.
REQUIRED: Final = {
    "POOLSCOPE_PG_USERNAME": "nobody",
    "POOLSCOPE_PG_PASSWORD": "nothing",
    "POOLSCOPE_GATEWAYS": f'["{LOOPBACK}:4317"]',
    "POOLSCOPE_REMOTE_WRITE_URL": f"http://{LOOPBACK}:9090/api/v1/write",
    "POOLSCOPE_TRACES_ENDPOINT": f"{LOOPBACK}:4317",
    "POOLSCOPE_GATEWAY_NAME": "gateway",
}
# What stands on top of agent.yaml and gateway.yaml for plain text between them.
PLAIN_TEXT: Final = CONFIG / "plain-text"


class MissingBinaryError(Exception):
    """A program of the pipeline is not here; the message says how to get it."""


def collector_binary() -> Path:
    """
    The Collector built from the manifest.

    Raises:
        MissingBinaryError: It is not built.
    """
    if (path := find_binaries().collector) is None:
        raise MissingBinaryError("the Collector is not built: make pipeline-build (needs Go, takes minutes, once)")
    return path


def prometheus_binary() -> Path:
    """
    Prometheus 3 as built here.

    Raises:
        MissingBinaryError: It is not built.
    """
    if (path := find_binaries().prometheus) is None:
        raise MissingBinaryError("Prometheus is not built: make pipeline-build (needs Go, takes minutes, once)")
    return path


def alertmanager_binary() -> Path:
    """
    Alertmanager, from PATH.

    Raises:
        MissingBinaryError: It is not installed.
    """
    for name in ("prometheus-alertmanager", "alertmanager"):
        if found := shutil.which(name):
            return Path(found)
    raise MissingBinaryError("Alertmanager is not installed: apt-get install prometheus-alertmanager")


@dataclass(frozen=True)
class Credentials:
    """
    What `make-credentials.sh` writes.

    Args:
        folder: Where it wrote.
    """

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """The files by the variables of agent.yaml and gateway.yaml."""
        return {
            "POOLSCOPE_TOKEN_FILE": str(self.folder / "token"),
            "POOLSCOPE_TLS_CA": str(self.folder / "ca.crt"),
            "POOLSCOPE_TLS_CERT": str(self.folder / "gateway.crt"),
            "POOLSCOPE_TLS_KEY": str(self.folder / "gateway.key"),
        }

    @property
    def token(self) -> str:
        """The token that agents send."""
        return (self.folder / "token").read_text().strip()


def make_credentials(folder: Path, *names: str) -> Credentials:
    """
    Run the committed script.

    Args:
        folder: Where it writes.
        names: What agents call the gateways.

    Raises:
        subprocess.CalledProcessError: OpenSSL is missing or failed; its message is on stderr.
    """
    subprocess.run(["sh", CONFIG / "make-credentials.sh", folder, *names], check=True)
    return Credentials(folder)


def monitoring_role(server: Postgres, password: str) -> Postgres:
    """
    Run the committed script as psql does, which is not part of the embedded server.

    Args:
        server: With a superuser's login.
        password: For the role.

    Returns:
        The same server with the role's login.
    """
    script = (CONFIG / "monitoring-role.sql").read_text()
    with server.connect() as connection:
        connection.execute(script.replace(":'password'", sql.Literal(password).as_string(connection)))
    return Postgres(server.host, server.port, MONITOR, password, server.database)


class Program:
    """
    A program that can be stopped and started again at the same address, with what it kept on disk; a context manager.

    Args:
        command: Program and arguments.
        ready: The address that answers once it is of use.
        log: Where its output goes.
        env: Its whole environment.
    """

    def __init__(self, command: Sequence[str | Path], ready: str, log: Path, env: Mapping[str, str]) -> None:
        self._command = command
        self._ready = ready
        self._env = dict(env)
        self.log = log
        self.child: Child | None = None

    def start(self) -> None:
        """
        Start it and wait until it is of use.

        Raises:
            ChildFailedError: It ended, or took too long.
        """
        self.child = Child(self._command, log=self.log, env=self._env)
        try:
            self.child.wait_ready(lambda: answers(self._ready), START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it; may be called twice."""
        if self.child is not None:
            self.child.stop()
            self.child = None

    def kill(self) -> None:
        """End it as a crash would."""
        if self.child is not None:
            self.child.stop(grace=0)
            self.child = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Collector(Program):
    """
    The built Collector with files of ``collector-config``.

    Args:
        folder: For its queues, events and log.
        config: The files, later ones on top of earlier ones.
        env: What the files take from the environment, beyond ports and folders.
    """

    def __init__(self, folder: Path, *config: Path | str, env: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ports = {name: free_port() for name in PORT_VARIABLES}
        settings = {
            **REQUIRED,
            "POOLSCOPE_BIND": LOOPBACK,
            "POOLSCOPE_TRACES_INSECURE": "true",  # the stores of here are on the loopback address
            "POOLSCOPE_DATA_DIR": str(folder),
            **{variable: str(self.ports[name]) for name, variable in PORT_VARIABLES.items()},
            **(env or {}),
        }
        files = [argument for path in config for argument in ("--config", str(path))]
        health = f"http://{LOOPBACK}:{self.ports['health']}/"
        super().__init__([collector_binary(), *files], health, folder / "collector.log", {**os.environ, **settings})

    @property
    def otlp(self) -> str:
        """Where the SDK's OTLP/HTTP exporters send to."""
        return f"http://{LOOPBACK}:{self.ports['otlp_http']}"

    def address(self, port: str) -> str:
        """Host and port of one of its endpoints."""
        return f"{LOOPBACK}:{self.ports[port]}"

    def page(self, port: str) -> str:
        """What it serves on a metrics port, as text."""
        request = urllib.request.Request(
            f"http://{self.address(port)}/metrics", headers={"Accept": "application/openmetrics-text"}
        )
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310 - our own server
            text: str = response.read().decode()
            return text


@dataclass(frozen=True)
class Sample:
    """
    One series of an instant query.

    Args:
        labels: Without the name.
        value: At the time of the query.
    """

    labels: Mapping[str, str]
    value: float
    name: str = ""


@dataclass(frozen=True)
class Addresses:
    """
    What the committed Prometheus file is to reach here.

    Args:
        jobs: Host and port by scrape job; jobs that are missing are left out.
        alertmanager: Host and port; empty for none.
        grafana: What the alerts' dashboard links start with.
        docs: What their page links start with.
    """

    jobs: Mapping[str, str] = field(default_factory=dict)
    alertmanager: str = ""
    grafana: str = "http://127.0.0.1:3000"
    docs: str = "docs"


class Prometheus(Program):
    """
    Prometheus with the committed file, rules and exemplars, and its query API.

    Args:
        folder: For its data and log.
        addresses: What it scrapes and where it sends alerts.
        rules: Rule files.
        interval: Seconds between two scrapes and two evaluations.
        binary: Another Prometheus than the one built here.
    """

    def __init__(
        self,
        folder: Path,
        addresses: Addresses,
        rules: Sequence[Path] = (),
        *,
        interval: str = "1s",
        binary: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(prometheus_config(addresses, rules, interval)))
        # Without the second, hidden one, the first scrape waits for the five seconds in which targets are gathered.
        of_3 = ["--web.enable-otlp-receiver", "--scrape.discovery-reload-interval=100ms"] if binary is None else []
        command: list[str | Path] = [
            binary or prometheus_binary(),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={LOOPBACK}:{self.port}",
            "--enable-feature=exemplar-storage",
            "--web.enable-remote-write-receiver",
            "--web.enable-lifecycle",
            "--log.level=warn",
            *of_3,
        ]
        env = {**os.environ, "POOLSCOPE_GRAFANA_URL": addresses.grafana, "POOLSCOPE_DOCS_URL": addresses.docs}
        super().__init__(command, f"{self.url}/-/ready", folder / "prometheus.log", env)

    def query(self, expression: str) -> list[Sample]:
        """
        Evaluate an instant query.

        Raises:
            ValueError: Prometheus rejects it; the message is Prometheus's.
        """
        result = self.api("query", query=expression)["result"]
        return [
            Sample(
                {key: text for key, text in each["metric"].items() if key != "__name__"},
                float(each["value"][1]),
                each["metric"].get("__name__", ""),
            )
            for each in result
        ]

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing now."""
        found: list[dict[str, Any]] = self.api("alerts")["alerts"]
        return found

    def exemplars(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        """
        The exemplars of the series in an expression.

        Args:
            expression: PromQL.
            start: Unix time in seconds.
            end: Unix time in seconds.
        """
        found = self.api("query_exemplars", query=expression, start=str(start), end=str(end))
        return [exemplar for series in found for exemplar in series["exemplars"]]

    def api(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - JSON
        """
        The `data` of an answer of the HTTP API.

        Raises:
            ValueError: The request was rejected; the message is Prometheus's.
        """
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=10) as response:  # noqa: S310 - our own server
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from error


def prometheus_config(addresses: Addresses, rules: Sequence[Path], interval: str) -> dict[str, Any]:
    """The committed Prometheus file with the addresses, rules and interval of here."""
    config: dict[str, Any] = yaml.safe_load((CONFIG / "prometheus" / "prometheus.yml").read_text())
    config["global"].update(scrape_interval=interval, evaluation_interval=interval)
    config["global"]["external_labels"] = {"grafana_url": addresses.grafana, "docs_url": addresses.docs}
    config["rule_files"] = [str(path) for path in rules]
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] in addresses.jobs]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [addresses.jobs[job["job_name"]]]}]
    if addresses.alertmanager:
        config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [addresses.alertmanager]}]}]
    else:
        config["alerting"].pop("alertmanagers")
    return config


class Alertmanager(Program):
    """
    Alertmanager with the committed file, sending to one webhook.

    Args:
        folder: For its data and log.
        webhook: Where it sends to.
        patience: How long it gathers alerts before it sends; as in the file when left out.
    """

    def __init__(self, folder: Path, webhook: str, *, patience: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.address = f"{LOOPBACK}:{free_port()}"
        config = yaml.safe_load((CONFIG / "prometheus" / "alertmanager.yml").read_text())
        config["receivers"][0]["webhook_configs"][0]["url"] = webhook
        if patience:
            config["route"].update(group_wait=patience, group_interval=patience)
        path = folder / "alertmanager.yml"
        path.write_text(yaml.safe_dump(config))
        command: list[str | Path] = [
            alertmanager_binary(),
            f"--config.file={path}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address={self.address}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]
        super().__init__(command, f"http://{self.address}/-/ready", folder / "alertmanager.log", os.environ)
