"""Images by digest: what is pinned, what is not, and how the digests of now come into the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tools import check, images

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW, OTHER = (f"sha256:{digit * 64}" for digit in "abc")
TEXT = f"""\
x-python: &python
  image: shop:local
  build:
    dockerfile_inline: |
      FROM python:3.13-slim@{OLD}
      FROM registry.example:5000/a/b:1.2 AS second
services:
  one:
    image: vendor/one:v1
  two:
    image: vendor/one:v1
"""
NAMES = ["python:3.13-slim", "registry.example:5000/a/b:1.2", "vendor/one:v1"]


@pytest.fixture
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Compose file in the place of ours, and a `docker` in the place of the real one."""
    path = tmp_path / "docker-compose.yml"
    path.write_text(TEXT)
    monkeypatch.setattr(images, "COMPOSE", path)
    program = tmp_path / "docker"
    program.write_text(
        f'#!/bin/sh\ncase "$4" in vendor/*) echo {NEW} ;; python*) echo {OLD} ;; *) echo {OTHER} ;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return path


def test_the_images_of_a_file() -> None:
    """Of services and of what is built here; not what is built here itself."""
    assert [image.name for image in images.images(TEXT)] == NAMES
    assert [image.digest for image in images.images(TEXT)] == [OLD, "", ""]


def test_pinning_takes_the_digests_of_now(compose: Path) -> None:
    """Nothing else of the file changes; a second time nothing does."""
    assert images.unpinned() == NAMES[1:]
    assert images.main(["--check"]) == 1
    assert compose.read_text() == TEXT
    assert images.main([]) == 0
    done = compose.read_text()
    assert done == TEXT.replace("b:1.2", f"b:1.2@{OTHER}").replace("one:v1", f"one:v1@{NEW}")
    assert images.main(["--check"]) == 0
    assert images.main([]) == 0
    assert compose.read_text() == done
    assert images.unpinned() == []


@pytest.mark.parametrize("answer", ["exit 1", "echo nothing", "echo sha256:12", "echo unreachable >&2; exit 1"])
def test_without_a_digest_nothing_changes(compose: Path, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A registry that is away, or an answer that is no digest, leaves the file as it is and is reported."""
    (compose.parent / "docker").write_text(f"#!/bin/sh\n{answer}\n")
    assert images.main([]) == 1
    assert compose.read_text() == TEXT
    assert NAMES[0] in capsys.readouterr().err


def test_a_missing_docker_is_reported(compose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a registry that is away."""
    monkeypatch.setenv("PATH", str(compose.parent / "nothing"))
    assert images.main([]) == 1
    assert compose.read_text() == TEXT


def test_make_check_knows_what_is_not_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning names each image without a digest; there is none where all have one."""
    monkeypatch.setattr(images, "unpinned", lambda: ["vendor/one:v1"])
    assert "vendor/one:v1" in check.unpinned_images(None)  # type: ignore[arg-type]
    monkeypatch.setattr(images, "unpinned", list)
    assert not check.unpinned_images(None)  # type: ignore[arg-type]
    assert check.unpinned_images in check.WARNINGS


def test_every_image_here_is_pinned() -> None:
    """No image loses its digest, and none comes without."""
    assert images.unpinned() == []
