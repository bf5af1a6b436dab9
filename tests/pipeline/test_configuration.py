"""The committed files, by the programs that read them and by the dictionary that names come from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import grafana.alerts
from examples.lab.pipeline import CONFIG, REQUIRED, ROOT
from grafana import collector as made
from poolscope import semconv
from poolscope.core.catalogue import FINDING_IDS, KINDS
from tools.pipeline_build import PROMETHEUS_VERSION

if TYPE_CHECKING:
    from pathlib import Path

COLLECTOR_FILES = ("collector.yaml", "agent.yaml", "gateway.yaml")
# Files with what stands on top of them for plain text.
PLAIN_FILES = (("agent.yaml", "plain-text/agent.yaml"), ("gateway.yaml", "plain-text/gateway.yaml"))
# Keys of attributes and metrics that other projects define and the files name.
OWN_NAME = re.compile(r"(?<![\w./-])(poolscope\.[a-z][a-z_.]*[a-z])")


def parsed(name: str) -> dict[str, Any]:
    """A file of collector-config."""
    content: dict[str, Any] = yaml.safe_load((CONFIG / name).read_text())
    return content


def known_names() -> set[str]:
    """Every name of the dictionary, and of the metrics that the Collector makes."""
    constants = {value for value in vars(semconv).values() if isinstance(value, str)}
    metrics = {metric.name for metric in (*semconv.METRICS, *made.COLLECTOR_METRICS)}
    return constants | metrics | {event.name for event in semconv.EVENTS}


@pytest.mark.parametrize("files", [*((name,) for name in COLLECTOR_FILES), *PLAIN_FILES], ids=" + ".join)
def test_the_collector_takes_its_files(collector: Path, files: tuple[str, ...]) -> None:
    """`validate` of the Collector that the manifest builds accepts each file, and warns of nothing."""
    command = [collector, "validate", *(argument for name in files for argument in ("--config", CONFIG / name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **REQUIRED})
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_manifest_has_exactly_what_the_files_use(collector: Path) -> None:
    """
    Every component of the distribution is used by a file or by docs/operate.md, and every component
    used is in it.
    """
    listed = yaml.safe_load(subprocess.run([collector, "components"], capture_output=True, check=True).stdout)
    # `debug` is for a person in trouble, `otlphttp` for vendors: docs/operate.md shows both.
    documented = {"exporters": {"debug", "otlphttp"}}
    for section in ("receivers", "processors", "connectors", "exporters", "extensions"):
        built = {aliases(component)[0] for component in listed[section]}
        spellings = {
            spelling: aliases(component)[0] for component in listed[section] for spelling in aliases(component)
        }
        used = {key.partition("/")[0] for name in COLLECTOR_FILES for key in parsed(name).get(section, {})}
        used |= documented.get(section, set())
        assert {spellings[key] for key in used} == built, section


def aliases(component: dict[str, Any]) -> list[str]:
    """The name of a component as the Collector lists it, and its older name where the files still use it."""
    older = {"otlp_grpc": "otlp", "otlp_http": "otlphttp", "span_metrics": "spanmetrics"}
    name = component["name"]
    return [name, *([older[name]] if name in older else [])]


@pytest.mark.parametrize("name", COLLECTOR_FILES)
def test_files_name_only_what_the_dictionary_knows(name: str) -> None:
    """A name of ours in a file is one of the dictionary's: a rename there makes this fail."""
    text = "\n".join(
        line.partition(" #")[0] for line in (CONFIG / name).read_text().splitlines() if line.strip()[:1] != "#"
    )
    assert set(OWN_NAME.findall(text)) <= known_names()


def test_what_the_collector_queries_is_declared() -> None:
    """Name, unit and labels of each metric made from SQL are those that dashboards and alerts use."""
    asked = [
        metric for query in parsed("collector.yaml")["receivers"]["sqlquery"]["queries"] for metric in query["metrics"]
    ]
    declared = {metric.name: metric for metric in made.SERVER_METRICS}
    assert {each["metric_name"] for each in asked} == set(declared)
    for each in asked:
        metric = declared[each["metric_name"]]
        own = set(metric.attributes) - {semconv.SERVER_ADDRESS, semconv.SERVER_PORT}
        assert (each["unit"], each["description"]) == (metric.unit, metric.description)
        assert set(each.get("attribute_columns", [])) == own


def test_no_secret_stands_in_a_file() -> None:
    """User names and passwords come from the environment, without a default."""
    for name in COLLECTOR_FILES:
        text = (CONFIG / name).read_text()
        for line in text.splitlines():
            if re.search(r"\b(password|username|user|token|tokens)\b\s*[:=]", line):
                assert re.search(r"\$\{env:POOLSCOPE_PG_(PASSWORD|USERNAME)\}", line), line


def test_gateways_measure_and_sample_as_one_machine_does() -> None:
    """
    What collector.yaml and gateway.yaml both do, they do alike and in the same order; a gateway adds only what remote
    write and more than one gateway ask for.
    """
    one, gateway = parsed("collector.yaml"), parsed("gateway.yaml")
    assert one["connectors"] == gateway["connectors"]
    common = one["processors"].keys() & gateway["processors"].keys()
    assert common == one["processors"].keys() - {"resource/server"}
    for key in common - {"memory_limiter"}:
        assert one["processors"][key] == gateway["processors"][key], key
    pipelines = gateway["service"]["pipelines"]
    assert pipelines.keys() == one["service"]["pipelines"].keys() - {"metrics/server"}
    for name, pipeline in pipelines.items():
        single = one["service"]["pipelines"][name]
        assert pipeline["receivers"] == single["receivers"], name
        added = {"interval", "resource/gateway"}
        assert [each for each in pipeline["processors"] if each not in added] == single["processors"], name


def test_agents_pass_everything_on_as_it_is() -> None:
    """An agent takes every signal and neither counts, drops nor changes anything: that is the gateways' part."""
    agent = parsed("agent.yaml")
    assert "connectors" not in agent
    assert agent["processors"].keys() == {"memory_limiter"}
    assert agent["service"]["pipelines"].keys() == {"metrics", "traces", "logs"}


@pytest.mark.parametrize("name", ["collector.yaml", "gateway.yaml"])
def test_what_is_made_from_spans_is_declared(name: str) -> None:
    """Name, labels and buckets of the metrics made from spans are those that dashboards and alerts use."""
    connectors = parsed(name)["connectors"]
    spans = connectors["spanmetrics"]
    assert {f"{spans['namespace']}.calls", f"{spans['namespace']}.duration"} == {
        made.SPAN_CALLS.name,
        made.SPAN_DURATION.name,
    }
    assert spans["histogram"]["unit"] == made.SPAN_DURATION.unit
    assert tuple(map(seconds, spans["histogram"]["explicit"]["buckets"])) == made.SPAN_DURATION.boundaries
    # The connector's own labels, besides that of the kind, which is left out.
    labels = {"span.name", "status.code", *(each["name"] for each in spans["dimensions"])}
    assert labels == set(made.SPAN_CALLS.attributes) == set(made.SPAN_DURATION.attributes)
    ((counted, findings),) = connectors["count"]["spans"].items()
    assert (counted, findings["description"]) == (made.TRACE_FINDINGS.name, made.TRACE_FINDINGS.description)
    assert tuple(each["key"] for each in findings["attributes"]) == made.TRACE_FINDINGS.attributes


def seconds(duration: str) -> float:
    """A duration in the notation of the Collector."""
    number, unit = re.fullmatch(r"(\d+)(ms|s)", duration).groups()  # type: ignore[union-attr]
    return int(number) / {"ms": 1000, "s": 1}[unit]


def test_rules_are_valid_and_without_lint(promtool: Path) -> None:
    """The tool of Prometheus accepts the committed rules and finds no duplicate and no fault of style in them."""
    rules = ROOT / grafana.alerts.FOLDER / "prometheus.yaml"
    command = [promtool, "check", "rules", "--lint=all", "--lint-fatal", rules]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_its_file(promtool: Path, tmp_path: Path) -> None:
    """The tool of Prometheus accepts the committed Prometheus file, with the rules where compose mounts them."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "prometheus.yml").write_text((CONFIG / "prometheus" / "prometheus.yml").read_text())
    (tmp_path / "rules" / "poolscope.yaml").write_text((ROOT / grafana.alerts.FOLDER / "prometheus.yaml").read_text())
    command = [promtool, "check", "config", tmp_path / "prometheus.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_committed_alerts_are_those_that_the_code_makes() -> None:
    """No generated file is stale."""
    for path, text in grafana.alerts.generate().items():
        assert (ROOT / path).read_text() == text, path


def test_every_alert_says_what_is_wrong_and_where_to_look() -> None:
    """
    Each has a summary, a description, a dashboard, a page if it has a finding; and every finding that an operator can
    see from outside has an alert.
    """
    alerts = grafana.alerts.alerts()
    assert len({alert.name for alert in alerts}) == len(alerts)
    for alert in alerts:
        assert alert.summary
        assert alert.description
        assert alert.dashboard
        assert not alert.finding or alert.finding in FINDING_IDS, alert.name
    # No series tells a burst from a small pool, for example: then the page says so.
    pages = {identity: (ROOT / KINDS[identity].page).read_text(encoding="utf-8") for identity in FINDING_IDS}
    without = {identity for identity, page in pages.items() if "no alert of its own" in page}
    assert {alert.finding for alert in alerts if alert.finding} == set(FINDING_IDS) - without


def test_grafana_gets_the_same_rules() -> None:
    """Grafana's provisioning has every alert, with the same expression, one condition above 0, and unique ids."""
    content = yaml.safe_load((ROOT / grafana.alerts.PROVISIONED).read_text())
    rules = {rule["title"]: rule for group in content["groups"] for rule in group["rules"]}
    alerts = {alert.name: alert for alert in grafana.alerts.alerts()}
    assert rules.keys() == alerts.keys()
    assert len({rule["uid"] for rule in rules.values()}) == len(rules)
    for name, rule in rules.items():
        assert rule["data"][0]["model"]["expr"].replace("$$", "$") == alerts[name].expression
        assert rule["condition"] == rule["data"][-1]["refId"]
        assert len(rule["uid"]) <= 40
        assert "$labels" not in str(rule["annotations"]).replace("$$labels", "")


BLOCK = re.compile(r"^```yaml\n# on top of (\S+\.yaml): [^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPERATE = (ROOT / "docs" / "operate.md").read_text()
EXAMPLES = dict.fromkeys(re.findall(r"\$\{env:(\w+)\}", OPERATE), "value") | {"VENDOR_OTLP_ENDPOINT": "http://vendor"}


@pytest.mark.parametrize("block", BLOCK.findall(OPERATE), ids=lambda block: block[1].split("\n")[1].strip(" :"))
def test_what_the_documentation_puts_on_top_is_taken(collector: Path, tmp_path: Path, block: tuple[str, str]) -> None:
    """Each YAML block of docs/operate.md is valid on top of the file that it names."""
    (tmp_path / "block.yaml").write_text(block[1])
    command = [collector, "validate", "--config", CONFIG / block[0], "--config", tmp_path / "block.yaml"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **REQUIRED, **EXAMPLES}
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_block_of_the_documentation_is_checked() -> None:
    """No YAML block of docs/operate.md goes without the line that says what it is put on top of."""
    assert len(BLOCK.findall(OPERATE)) == OPERATE.count("```yaml")


def test_kept_traces_go_into_a_file_where_there_is_no_store(collector: Path) -> None:
    """The file for machines without a trace store is valid on top of collector.yaml."""
    command = [collector, "validate"]
    for name in ("collector.yaml", "without-trace-store.yaml"):
        command += ["--config", CONFIG / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **REQUIRED})
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_compose_is_valid_and_exposes_nothing_beyond_this_machine() -> None:
    """
    docker-compose.yml fits the Compose specification; every port is bound to the loopback address, every image is
    pinned, every service has limits, and every file that it mounts is there.
    """
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "docker-compose.yml",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert not re.search(r":latest\b", service["image"]), name
        assert ":" in service["image"], name
        assert service["mem_limit"], name
        assert service["cpus"], name
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).exists(), volume
    assert f":{parsed('builder.yaml')['dist']['version']}@" in services["collector"]["image"]
    # The module of Prometheus 3.15.0 is version 0.315.0.
    _, release, patch = PROMETHEUS_VERSION.split(".")
    assert services["prometheus"]["image"].partition("@")[0].endswith(f":v{release[0]}.{int(release[1:])}.{patch}")


#: Who runs in an image that names no user here: its own user, which is not root.
USERS_OF_IMAGES = ("poolscope-shop", "prom/", "grafana/grafana")


def test_compose_runs_nothing_as_root_and_writes_to_no_image() -> None:
    """
    No service has root, a capability, a way to more rights, or an image that it can change; one gives new volumes to
    their users, sees nothing else and ends.
    """
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    (root,) = [name for name, service in services.items() if re.match("0|root", str(service.get("user", "")))]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert "privileged" not in service, name
        assert "user" in service or service["image"].startswith(USERS_OF_IMAGES), name
        assert name == root or "cap_add" not in service, name
        assert not any("docker.sock" in volume for volume in service.get("volumes", [])), name
        for volume in service.get("volumes", []):
            assert not volume.startswith(("/", "./")) or volume.endswith(":ro"), volume
    assert services[root]["cap_add"] == ["CHOWN"]
    assert services[root]["network_mode"] == "none"
    assert services[root]["restart"] == "no"
    assert all(not volume.startswith((".", "/")) for volume in services[root]["volumes"])


def test_what_is_built_installs_by_hash_and_has_a_user() -> None:
    """Only what the lock has by hash is installed, and nothing resolved; the last word is a user that is not root."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    files = {service["build"]["dockerfile_inline"] for service in services.values() if "build" in service}
    assert files
    for text in files:
        lines = [line for line in text.splitlines() if line]
        assert re.fullmatch(r"FROM \S+@sha256:[0-9a-f]{64}", lines[0])
        for line in lines:
            if "pip install" in line:
                assert "--require-hashes -r image.lock" in line or "--no-deps --no-build-isolation ." in line
        assert re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", lines[-1])


def test_grafana_has_no_administrator_with_a_known_password() -> None:
    """None is made, no password stands in the file, and it answers by its own address only."""
    settings = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["environment"]
    assert settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert settings["GF_SERVER_ENFORCE_DOMAIN"] == "true"
    assert not [key for key in settings if "PASSWORD" in key]


def test_prometheus_takes_no_data_and_no_orders() -> None:
    """In docker-compose.yml it scrapes: nothing that reaches its port writes series, deletes them or stops it."""
    command = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["prometheus"]["command"]
    assert not [each for each in command if re.match(r"--web\.enable", each)]
