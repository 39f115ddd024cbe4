"""Weights' files: fetched, checked against the hash in their name, and cached."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from phosphene.cache import cache_folder
from phosphene.errors import WeightsError, one_line

_LOCKS: dict[str, threading.Lock] = {}
_TIMEOUT = 30  # seconds without a byte
_STALE_PARTS = 24 * 3600  # seconds until what a killed download left is cleared away


def file_name(url: str) -> str:
    return url.rsplit("/", 1)[1]


def _cached_paths(file: str) -> tuple[Path, Path]:
    """Our own cache, and torch's, where torchvision may have put it before."""
    return cache_folder() / "weights" / file, Path(torch.hub.get_dir()) / "checkpoints" / file


def is_cached(file: str) -> bool:
    return any(path.is_file() for path in _cached_paths(file))


def weights_file(url: str, network: str) -> Path:
    """The file of that address, from a cache or fetched; its hash is right."""
    file = file_name(url)
    match = re.search(r"-([0-9a-f]{8,64})\.", file)
    if match is None:
        raise WeightsError(f"{url} publishes no hash in its name, so it is not fetched")
    prefix = match.group(1)
    # Two threads that want the same file: the second finds what the first has fetched. Two
    # processes both fetch it, each under a name of its own.
    with _LOCKS.setdefault(file, threading.Lock()):
        damaged = ""
        for path in _cached_paths(file):
            if path.is_file():
                digest = _sha256(path)
                if digest.startswith(prefix):
                    return path
                damaged = f"; {path} is damaged, its SHA-256 starts with {digest[:8]}"
        target = _cached_paths(file)[0]
        address = _mirrored(url)
        try:
            download(address, target, prefix)
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise WeightsError(
                f"the weights of {network} could not be fetched from {address} "
                f"({one_line(reason)}{damaged}); put {file} into {target.parent}, or name a copy "
                "of the site in PHOSPHENE_WEIGHTS_MIRROR; --network dreamnet needs no download"
            ) from error
        return target


def _mirrored(url: str) -> str:
    mirror = os.environ.get("PHOSPHENE_WEIGHTS_MIRROR")
    if not mirror:
        return url
    if "://" not in mirror:
        mirror = Path(mirror).expanduser().resolve().as_uri()
    return f"{mirror.rstrip('/')}/{file_name(url)}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, target: Path, prefix: str) -> None:
    """Fetch into `target`, which is whole and of the right hash, or not there."""
    if not url.startswith(("https://", "http://", "file://")):
        raise ValueError(f"{url} is neither http(s) nor a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    for part in target.parent.glob("*.part"):
        if time.time() - part.stat().st_mtime > _STALE_PARTS:
            part.unlink(missing_ok=True)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    request = urllib.request.Request(url, headers={"User-Agent": "phosphene"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, part.open("wb") as file:
            length = int(answer.headers.get("Content-Length") or 0)
            digest, done = hashlib.sha256(), 0
            with _progress(target.name, length) as advance:
                while block := answer.read(1 << 18):
                    file.write(block)
                    digest.update(block)
                    done += len(block)
                    advance(len(block))
        if done < length:
            raise OSError(f"it broke off after {done} of {length} bytes")
        if not digest.hexdigest().startswith(prefix):
            raise OSError(
                f"wrong hash: its SHA-256 starts with {digest.hexdigest()[:8]}, not {prefix}"
            )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _progress(name: str, length: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for what takes over a second."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(name, total=length or None)
    start, shown = time.monotonic(), False

    def advance(count: int) -> None:
        nonlocal shown
        bar.advance(task, count)
        if not shown and time.monotonic() - start > 1:
            bar.start()
            shown = True

    try:
        yield advance
    finally:
        if shown:
            bar.stop()
