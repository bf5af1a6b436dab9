"""
Build the Collector, Prometheus and promtool of the pipeline, once, outside the tree.

The binaries lie in ``$POOLSCOPE_CACHE`` (else ``$XDG_CACHE_HOME/poolscope``, else ``~/.cache/poolscope``), that of the
Collector under a hash of the manifest, Prometheus under its version. A second run finds them and builds nothing; of
two at the same time one builds and the other waits.

Usage:
    python tools/pipeline_build.py              build what is missing, print the paths
    python tools/pipeline_build.py --paths      print the paths of what is built, build nothing
    python tools/pipeline_build.py collector    build only that one (or: prometheus)
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fasteners import InterProcessLock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "collector-config" / "builder.yaml"
COLLECTOR_VERSION = "v0.152.0"
BUILDER = f"go.opentelemetry.io/collector/cmd/builder@{COLLECTOR_VERSION}"
PROMETHEUS_VERSION = "v0.315.0"
PROMETHEUS_MODULE = "github.com/prometheus/prometheus"
# Some releases are absent from the checksum database; tried only after the plain build failed.
UNLISTED = "github.com/open-telemetry/*,go.opentelemetry.io/*"
SOURCES = "collector-build"  # `dist.output_path` of the manifest
PROGRESS_EVERY = 5.0  # seconds between two progress lines


class BuildError(Exception):
    """A step failed; the message tells which one and what to do."""


@dataclass(frozen=True)
class Binaries:
    """Where the built programs lie; a path is None where that program is not built."""

    collector: Path | None
    prometheus: Path | None
    promtool: Path | None


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` where None.

    Returns:
        0 where everything asked for is there, 1 otherwise.
    """
    parser = argparse.ArgumentParser(description="Build the programs of the pipeline into the cache.")
    parser.add_argument("programs", nargs="*", choices=["collector", "prometheus", []], help="default: both")
    parser.add_argument("--paths", action="store_true", help="print what is built, build nothing")
    args = parser.parse_args(argv)
    wanted = args.programs or ["prometheus", "collector"]
    try:
        if not args.paths:
            for program in wanted:
                build_collector() if program == "collector" else build_prometheus()
    except BuildError as error:
        print(f"pipeline-build: {error}", file=sys.stderr)
        return 1
    found = find_binaries()
    for name in ("collector", "prometheus", "promtool"):
        print(f"{name}={getattr(found, name) or ''}")
    missing = [program for program in wanted if getattr(found, program) is None]
    return 1 if missing else 0


def find_binaries() -> Binaries:
    """
    Look up what an earlier build left in the cache.

    Returns:
        The paths; None for a program that is not there (for this manifest and these versions).
    """
    collector = collector_home() / "poolscope-collector"
    prometheus = prometheus_home() / "prometheus"
    promtool = prometheus_home() / "promtool"
    return Binaries(*(path if path.exists() else None for path in (collector, prometheus, promtool)))


def build_collector() -> Path:
    """
    Build the Collector from the manifest with the builder of the same version.

    Returns:
        The binary.

    Raises:
        BuildError: Go is missing, or a step failed.
    """
    home = collector_home()
    binary = home / "poolscope-collector"
    with alone(home, "collector"):
        if binary.exists():
            say(f"collector: already built ({binary})")
        else:
            _build_collector(home, binary)
    return binary


def _build_collector(home: Path, binary: Path) -> None:
    builder = install_builder()
    work = home / "build"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    manifest = work / "builder.yaml"
    shutil.copy(MANIFEST, manifest)
    generate = [str(builder), f"--config={manifest}", "--skip-compilation"]
    run_with_fallback("collector: generate and resolve modules", generate, cwd=work)
    compile_go("collector: compile", ["."], output=work / "poolscope-collector", cwd=work / SOURCES)
    (work / "poolscope-collector").replace(binary)
    shutil.rmtree(work, ignore_errors=True)
    say(f"collector: built ({binary})")


def install_builder() -> Path:
    """Install the OpenTelemetry Collector Builder of the pinned version into the cache."""
    home = cache() / f"builder-{COLLECTOR_VERSION}"
    binary = home / "builder"
    if not binary.exists():
        home.mkdir(parents=True, exist_ok=True)
        command = [go(), "install", BUILDER]
        run_with_fallback("collector: install the builder", command, cwd=home, env={"GOBIN": str(home)})
    return binary


def build_prometheus() -> Path:
    """
    Build Prometheus and promtool from the Go module (API only: the pages are not part of the module).

    Returns:
        The Prometheus binary.

    Raises:
        BuildError: Go is missing, or a step failed.
    """
    home = prometheus_home()
    with alone(home, "prometheus"):
        if (home / "prometheus").exists() and (home / "promtool").exists():
            say(f"prometheus: already built ({home / 'prometheus'})")
        else:
            _build_prometheus(home)
    return home / "prometheus"


def _build_prometheus(home: Path) -> None:
    work = home / "build"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    commands = [f"{PROMETHEUS_MODULE}/cmd/{name}" for name in ("prometheus", "promtool")]
    imports = "".join(f'import _ "{command}"\n' for command in commands)
    (work / "tools.go").write_text(f"//go:build tools\n\npackage tools\n\n{imports}")
    (work / "go.mod").write_text(
        f"module poolscope/prometheus\n\ngo 1.25\n\nrequire {PROMETHEUS_MODULE} {PROMETHEUS_VERSION}\n"
    )
    out = work / "out"
    out.mkdir()
    compile_go("prometheus: compile", commands, output=out, cwd=work, flags=["-mod=mod", "-tags=remove_all_sd"])
    for name in ("prometheus", "promtool"):
        (out / name).replace(home / name)
    shutil.rmtree(work, ignore_errors=True)
    say(f"prometheus: built ({home / 'prometheus'})")


@contextlib.contextmanager
def alone(home: Path, what: str) -> Iterator[None]:
    """Wait until nobody else builds in this folder of the cache; they would take one another's files away."""
    home.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    lock = InterProcessLock(home / ".lock")
    while not lock.acquire(timeout=PROGRESS_EVERY):
        say(f"{what}: another process builds it, waiting, {time.monotonic() - started:.0f} s")
    try:
        yield
    finally:
        lock.release()


def compile_go(title: str, packages: Sequence[str], *, output: Path, cwd: Path, flags: Sequence[str] = ()) -> None:
    """Compile with one progress line per few seconds that tells how many packages are done."""
    command = [go(), "build", "-v", "-trimpath", "-ldflags=-s -w", *flags, "-o", str(output), *packages]
    run_with_fallback(title, command, cwd=cwd)


def run_with_fallback(title: str, command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a Go step; where it fails, once more without the checksum database for OpenTelemetry's modules."""
    try:
        run(title, command, cwd=cwd, env=env)
    except BuildError as error:
        say(f"{title}: failed, again without the checksum database for {UNLISTED}")
        say(str(error))
        run(title, command, cwd=cwd, env={**(env or {}), "GONOSUMDB": UNLISTED})


def run(title: str, command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> None:
    """
    Run one step and tell how far it is.

    Raises:
        BuildError: The step ended with another status than 0; its last lines are in the message.
    """
    started = last = time.monotonic()
    lines: list[str] = []
    merged = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", **(env or {})}
    say(f"{title} ...")
    with subprocess.Popen(
        command, cwd=cwd, env=merged, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace"
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                if time.monotonic() - last >= PROGRESS_EVERY:
                    last = time.monotonic()
                    say(f"{title}: {len(lines)} lines, {last - started:.0f} s: {lines[-1][:100]}")
        except BaseException:  # Ctrl-C: it ends with us
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        tail = "\n".join(lines[-15:])
        message = f"{title} failed with status {process.returncode}:\n{tail}"
        raise BuildError(message)
    say(f"{title}: done in {time.monotonic() - started:.0f} s")


def collector_home() -> Path:
    """Return the cache folder of the Collector that the manifest of now describes."""
    return cache() / f"collector-{digest(MANIFEST.read_bytes(), COLLECTOR_VERSION.encode())}"


def prometheus_home() -> Path:
    """Return the cache folder of the pinned Prometheus."""
    return cache() / f"prometheus-{PROMETHEUS_VERSION}"


def cache() -> Path:
    """Return the folder outside the tree in which built programs are kept."""
    chosen = os.environ.get("POOLSCOPE_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "poolscope"


def digest(*parts: bytes) -> str:
    """Return a short hash that changes with any part."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def go() -> str:
    """
    Find the Go toolchain.

    Raises:
        BuildError: There is none.
    """
    found = shutil.which("go")
    if found is None:
        message = "the Go toolchain is missing: install Go 1.25 or newer (https://go.dev/dl) and run it again"
        raise BuildError(message)
    return found


def say(message: str) -> None:
    """Print one progress line at once."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
