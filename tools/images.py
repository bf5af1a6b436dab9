"""
Pins the images of docker-compose.yml by digest: `name:tag` becomes `name:tag@sha256:...`, that of all platforms.

Usage:
    python tools/images.py           take the digests that the tags have now (needs docker and its registries)
    python tools/images.py --check   compare instead: exit code 1 when a tag has another digest now or an image has none
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
COMPOSE: Final = ROOT / "docker-compose.yml"
#: An image that is fetched, in a service or as the base of one that is built; what is built here has the tag `local`.
IMAGE: Final = re.compile(
    r"^(?P<before> +(?:image: |FROM ))(?P<name>(?!\S+:local\b)[\w./:-]+?)(?:@(?P<digest>\S+))?(?P<after>(?: AS \w+)?)$",
    re.MULTILINE,
)
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
ASK_SECONDS: Final = 60.0


class Image(NamedTuple):
    """
    An image that is fetched.

    Args:
        name: With its tag.
        digest: ``sha256:...``; empty where it has none.
    """

    name: str
    digest: str


class DigestError(Exception):
    """A digest could not be had; the message says of which image, and why."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` when left out.

    Returns:
        0 when every image has the digest of now, else 1.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, change nothing")
    options = parser.parse_args(argv)
    text = COMPOSE.read_text(encoding="utf-8")
    try:
        now = {image.name: current_digest(image.name) for image in images(text)}
    except DigestError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    changed = [image.name for image in images(text) if image.digest != now[image.name]]
    for name in changed:
        print(f"{name}@{now[name]}")
    if options.check:
        return 1 if changed else 0
    COMPOSE.write_text(pinned(text, now.__getitem__), encoding="utf-8")
    print(f"{len(changed)} of {len(now)} images have another digest than before")
    return 0


def images(text: str) -> list[Image]:
    """
    The images in a Compose file, each once, in its order.

    Args:
        text: The file's.
    """
    return list(dict.fromkeys(Image(found["name"], found["digest"] or "") for found in IMAGE.finditer(text)))


def pinned(text: str, digest_of: Callable[[str], str]) -> str:
    """
    A Compose file with a digest behind each image.

    Args:
        text: The file's.
        digest_of: The digest of a name with its tag.
    """
    return IMAGE.sub(lambda found: f"{found['before']}{found['name']}@{digest_of(found['name'])}{found['after']}", text)


def unpinned() -> list[str]:
    """The names of the images in docker-compose.yml that have no digest."""
    return [image.name for image in images(COMPOSE.read_text(encoding="utf-8")) if not DIGEST.fullmatch(image.digest)]


def current_digest(name: str) -> str:
    """
    The digest that a tag has now, of the index of all platforms.

    Args:
        name: With its tag.

    Raises:
        DigestError: Docker is missing, or does not reach the registry, or the image is not there.
    """
    command = ["docker", "buildx", "imagetools", "inspect", name, "--format", "{{.Manifest.Digest}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DigestError(f"{name}: {error}") from error
    digest = done.stdout.strip()
    if done.returncode or not DIGEST.fullmatch(digest):
        raise DigestError(f"{name}: {(done.stderr or digest).strip()}")
    return digest


if __name__ == "__main__":
    sys.exit(main())
