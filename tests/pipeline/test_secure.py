"""From agents to gateways: by TLS, to a gateway that is who it says, with a token; and plain text on loopback only."""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from examples.lab.pipeline import CONFIG, PLAIN_TEXT, Collector, make_credentials
from examples.lab.processes import LOOPBACK, ChildFailedError, wait_until
from tests.pipeline.sink import Sink, figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from examples.lab.pipeline import Credentials
    from tests.pipeline.emitter import Process

pytestmark = pytest.mark.timeout(300)

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
WAIT_SECONDS = 30
QUEUED = "otelcol_exporter_queue_size"
FAILED = r"otelcol_exporter_send_failed_spans(?:_total)?"
#: Long enough that no request is kept by its name or its findings alone.
LONG_WAIT = 9.0


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    """Certificate and token of another authority, for the same names."""
    return make_credentials(tmp_path_factory.mktemp("strangers"), LOOPBACK)


@pytest.fixture(scope="module")
def store(collector: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    """Where the gateway sends what it takes."""
    with Sink(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture(scope="module")
def tokens(credentials: Credentials, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gateway's own file of tokens."""
    path = tmp_path_factory.mktemp("tokens") / "token"
    path.write_text(credentials.token)
    return path


@pytest.fixture(scope="module")
def gateway(
    credentials: Credentials, store: Sink, tokens: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collector]:
    """A gateway as the committed file makes it, keeping every trace that waited."""
    env = {
        **credentials.env,
        "POOLSCOPE_TOKEN_FILE": str(tokens),
        "POOLSCOPE_TRACES_ENDPOINT": store.address("otlp_grpc"),
        "POOLSCOPE_DECISION_WAIT": "1s",
        "POOLSCOPE_DECISION_WAIT_AFTER_ROOT": "1s",
    }
    with Collector(tmp_path_factory.mktemp("gateway"), CONFIG / "gateway.yaml", env=env) as gateway:
        yield gateway


def by_grpc(gateway: Collector, authority: Path, token: str | None) -> str:
    """The status with which the gateway answers an export."""
    trusted = grpc.ssl_channel_credentials(authority.read_bytes())
    with grpc.secure_channel(gateway.address("otlp_grpc"), trusted) as channel:
        return _export(channel, token)


def by_plain_grpc(gateway: Collector, token: str | None) -> str:
    """The same without TLS."""
    with grpc.insecure_channel(gateway.address("otlp_grpc")) as channel:
        return _export(channel, token)


def _export(channel: grpc.Channel, token: str | None) -> str:
    call = channel.unary_unary(
        EXPORT,
        request_serializer=ExportTraceServiceRequest.SerializeToString,
        response_deserializer=ExportTraceServiceResponse.FromString,
    )
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    try:
        call(ExportTraceServiceRequest(), metadata=metadata, timeout=WAIT_SECONDS)
    except grpc.RpcError as error:
        status: str = error.code().name
        return status
    return "OK"


def by_http(gateway: Collector, authority: Path, token: str | None, **more: Any) -> int:
    """The status with which the gateway answers an export by HTTP."""
    context = ssl.create_default_context(cafile=authority)
    for name, value in more.items():
        setattr(context, name, value)
    connection = http.client.HTTPSConnection(
        LOOPBACK, gateway.ports["otlp_http"], context=context, timeout=WAIT_SECONDS
    )
    with contextlib.closing(connection):
        return _post(connection, token)


def _post(connection: http.client.HTTPConnection, token: str | None) -> int:
    headers = {"Content-Type": "application/x-protobuf"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    connection.request("POST", "/v1/traces", b"", headers)
    return connection.getresponse().status


def authority_of(credentials: Credentials) -> Path:
    """The file with the certificate that agents trust."""
    return credentials.folder / "ca.crt"


def test_with_certificate_and_token_the_gateway_takes_data(gateway: Collector, credentials: Credentials) -> None:
    """By gRPC and by HTTP."""
    assert by_grpc(gateway, authority_of(credentials), credentials.token) == "OK"
    assert by_http(gateway, authority_of(credentials), credentials.token) == 200


@pytest.mark.parametrize("token", [None, "", "wrong", "wrong " * 1000], ids=["none", "empty", "wrong", "long"])
def test_without_its_token_the_gateway_takes_nothing(
    gateway: Collector, credentials: Credentials, token: str | None
) -> None:
    """No token, an empty or another one: refused, by gRPC and by HTTP."""
    assert by_grpc(gateway, authority_of(credentials), token) == "UNAUTHENTICATED"
    assert by_http(gateway, authority_of(credentials), token) == 401


def test_a_gateway_of_another_authority_is_not_trusted(
    gateway: Collector, credentials: Credentials, strangers: Credentials
) -> None:
    """A client that expects another authority sends nothing, not even its token."""
    assert by_grpc(gateway, authority_of(strangers), credentials.token) == "UNAVAILABLE"
    with pytest.raises(ssl.SSLCertVerificationError):
        by_http(gateway, authority_of(strangers), credentials.token)


def test_the_gateway_speaks_no_plain_text_and_no_old_protocol(gateway: Collector, credentials: Credentials) -> None:
    """With the right token too: it would be readable on its way."""
    assert by_plain_grpc(gateway, credentials.token) == "UNAVAILABLE"
    with contextlib.closing(http.client.HTTPConnection(LOOPBACK, gateway.ports["otlp_http"])) as plain:
        assert _post(plain, credentials.token) == 400
    with pytest.raises(ssl.SSLError), pytest.warns(DeprecationWarning, match="TLSv1_1"):
        by_http(gateway, authority_of(credentials), credentials.token, maximum_version=ssl.TLSVersion.TLSv1_1)


def test_a_new_token_is_taken_without_a_restart(gateway: Collector, credentials: Credentials, tokens: Path) -> None:
    """Two lines are two tokens, so agents change theirs one after the other; a line that goes is refused."""
    authority = authority_of(credentials)
    tokens.write_text(f"{credentials.token} old\nsecond new\n")
    wait_until(lambda: by_grpc(gateway, authority, "second") == "OK", 60, "the new token")
    assert by_grpc(gateway, authority, credentials.token) == "OK"
    tokens.write_text(credentials.token)
    wait_until(lambda: by_grpc(gateway, authority, "second") == "UNAUTHENTICATED", 60, "the new token to go")
    assert by_grpc(gateway, authority, credentials.token) == "OK"


@pytest.fixture
def agent_with(gateway: Collector, credentials: Credentials, tmp_path: Path) -> Callable[..., Collector]:
    """Makes the agent as the committed file does, with other files in the place of its own."""

    def make(**env: str) -> Collector:
        gateways = {"POOLSCOPE_GATEWAYS": f'["{gateway.address("otlp_grpc")}"]'}
        return Collector(tmp_path / "agent", CONFIG / "agent.yaml", env={**credentials.env, **gateways, **env})

    return make


def one_trace(process: Process) -> str:
    """A trace that the gateway keeps, on its way."""
    trace = process.request(wait=LONG_WAIT)
    assert process.flush()
    return trace


def test_an_agent_with_certificate_and_token_is_heard(
    agent_with: Callable[..., Collector], store: Sink, processes: Callable[..., Process]
) -> None:
    """An application sends plain text to the agent on its own machine; the trace arrives behind the gateway."""
    with agent_with() as agent:
        trace = one_trace(processes(agent.otlp))
        wait_until(lambda: trace in store.traces(), 60, "the trace")


def test_an_agent_with_another_token_is_not_heard(
    agent_with: Callable[..., Collector], store: Sink, strangers: Credentials, processes: Callable[..., Process]
) -> None:
    """The gateway refuses it for good, so the agent drops the trace, counts that and says why, without the token."""
    with agent_with(POOLSCOPE_TOKEN_FILE=strangers.env["POOLSCOPE_TOKEN_FILE"]) as agent:
        trace = one_trace(processes(agent.otlp))
        wait_until(lambda: figure(agent, FAILED) > 0, 60, "the refusal")
        log = agent.log.read_text()
    assert "Unauthenticated" in log
    assert strangers.token not in log
    assert trace not in store.traces()


@pytest.mark.reliability(
    fault="the certificate of the gateways is not of the authority that an agent trusts",
    application="the same: the agent takes all it sends",
    lost="nothing: it waits on the agent's disk until the agent has the right authority",
)
def test_an_agent_keeps_what_it_has_for_a_gateway_that_it_does_not_trust(
    agent_with: Callable[..., Collector], store: Sink, strangers: Credentials, processes: Callable[..., Process]
) -> None:
    """It sends to no other, and delivers after a start with the right authority."""
    with agent_with(POOLSCOPE_TLS_CA=strangers.env["POOLSCOPE_TLS_CA"]) as agent:
        trace = one_trace(processes(agent.otlp))
        wait_until(lambda: "certificate signed by unknown authority" in agent.log.read_text(), 60, "the refusal")
        assert figure(agent, QUEUED) > 0
        assert trace not in store.traces()
    with agent_with():
        wait_until(lambda: trace in store.traces(), 60, "the trace")


@pytest.mark.parametrize("content", [None, "\n"], ids=["missing", "empty"])
@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("agent.yaml", "POOLSCOPE_TOKEN_FILE"),
        ("gateway.yaml", "POOLSCOPE_TOKEN_FILE"),
        ("gateway.yaml", "POOLSCOPE_TLS_KEY"),
    ],
)
@pytest.mark.usefixtures("collector")
def test_without_a_file_of_its_own_it_does_not_start(
    credentials: Credentials, tmp_path: Path, name: str, variable: str, content: str | None
) -> None:
    """A Collector whose token or key is not there, or empty, never falls back to plain text or to no token."""
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    otel = Collector(tmp_path / "c", CONFIG / name, env={**credentials.env, variable: str(path)})
    with pytest.raises(ChildFailedError), otel:
        pass
    last = otel.log.read_text().strip().splitlines()[-1]
    assert str(path) in last or "failed to load TLS cert and key" in last


def settings(path: Path) -> dict[str, Any]:
    """A file of collector-config."""
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def test_plain_text_between_machines_is_a_file_of_its_own() -> None:
    """The files themselves have no variable and no value that turns TLS or the token off."""
    agent, gateway = (settings(CONFIG / name) for name in ("agent.yaml", "gateway.yaml"))
    for signal in ("traces", "metrics"):
        client = agent["exporters"][f"loadbalancing/{signal}"]["protocol"]["otlp"]
        assert client["auth"] == {"authenticator": "bearertokenauth"}
        assert client["tls"].keys() == {"ca_file", "reload_interval"}
    for server in gateway["receivers"]["otlp"]["protocols"].values():
        assert server["auth"] == {"authenticator": "bearertokenauth"}
        assert server["tls"].keys() == {"cert_file", "key_file", "reload_interval"}
    for each in (agent, gateway):
        token = {"filename": "${env:POOLSCOPE_TOKEN_FILE:-/etc/poolscope/tls/token}"}
        assert each["extensions"]["bearertokenauth"] == token
        assert "bearertokenauth" in each["service"]["extensions"]
    assert gateway["exporters"]["otlp/traces"]["tls"] == {"insecure": "${env:POOLSCOPE_TRACES_INSECURE:-false}"}


@pytest.mark.parametrize("name", ["agent.yaml", "gateway.yaml"])
def test_plain_text_turns_off_all_of_it(name: str) -> None:
    """What stands on top of a file is for each place that the file protects."""
    plain, text = (PLAIN_TEXT / name).read_text(), (CONFIG / name).read_text()
    assert plain.count("auth: null") == text.count("authenticator: bearertokenauth") + text.count("*auth") == 2
    assert "bearertokenauth" not in plain


@pytest.mark.parametrize("name", ["collector.yaml", "agent.yaml", "gateway.yaml"])
def test_every_port_is_on_the_loopback_address_by_default(name: str) -> None:
    """Each address that a Collector listens on has a variable with that default."""
    content = settings(CONFIG / name)
    listening = [
        content["extensions"]["health_check"]["endpoint"],
        *(server["endpoint"] for server in content["receivers"]["otlp"]["protocols"].values()),
        *(each["endpoint"] for key, each in content["exporters"].items() if key.startswith("prometheus/")),
        *(
            reader["pull"]["exporter"]["prometheus"]["host"]
            for reader in content["service"]["telemetry"]["metrics"]["readers"]
        ),
    ]
    assert len(listening) >= 4
    for address in listening:
        assert re.match(r"\$\{env:POOLSCOPE_(SELF_)?BIND:-127\.0\.0\.1\}", address), address


def test_what_the_script_writes(credentials: Credentials, tmp_path: Path) -> None:
    """
    Keys and the token are for their owner only. Run again, it keeps authority and token, and makes another certificate,
    for the names of now.
    """
    made = make_credentials(tmp_path / "made", "gateway-1.example", "192.0.2.7", "2001:db8::7")
    modes = {path.name: path.stat().st_mode & 0o777 for path in made.folder.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "gateway.crt": 0o644, "gateway.key": 0o600, "token": 0o600}
    assert re.fullmatch(r"[0-9a-f]{64}", made.token)
    assert made.token != credentials.token
    kept = {name: (made.folder / name).read_bytes() for name in ("ca.crt", "ca.key", "token")}
    first = shown(made)
    for name in ("DNS:gateway-1.example", "IP Address:192.0.2.7", "IP Address:2001:DB8:0:0:0:0:0:7"):
        assert name in first
    make_credentials(made.folder, "gateway-2.example")
    assert {name: (made.folder / name).read_bytes() for name in kept} == kept
    second = shown(made)
    assert "gateway-2.example" in second
    assert "gateway-1.example" not in second


def shown(credentials: Credentials) -> str:
    """The gateway's certificate in words, once the authority vouches for it."""
    certificate = credentials.folder / "gateway.crt"
    verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver"]
    subprocess.run([*verify, "-CAfile", authority_of(credentials), certificate], check=True, capture_output=True)
    command = ["openssl", "x509", "-in", certificate, "-noout", "-text"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
