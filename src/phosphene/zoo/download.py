"""Weights' files: fetched, checked against the hash in their name, and cached.

A name holds eight digits of the hash as a rule. All of it is written down beside the cache the
first time that a file is used, and from then on a file must be that very one.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phosphene.cache import cache_folder
from phosphene.errors import ImageError, WeightsError, one_line
from phosphene.image.files import write_atomically

_LOCKS: dict[str, threading.Lock] = {}
_PINNING = threading.Lock()
PINS = "sha256.json"  # beside the cached files: name -> SHA-256 of what was used first
_TIMEOUT = 30  # seconds without a byte
MOST_BYTES = 4 * 2**30  # of a file; the largest of torchvision's has 2.4 GiB
LONGEST = 6 * 3600  # seconds for a file
LEAST, WITHIN = 64 * 2**10, 60  # bytes that come at least in so many seconds
_STALE_PARTS = 24 * 3600  # seconds until what a killed download left is cleared away


def file_name(url: str) -> str:
    return url.rsplit("/", 1)[1]


def _cached_paths(file: str) -> tuple[Path, Path]:
    """Our own cache, and torch's, where torchvision may have put it before."""
    import torch

    return cache_folder() / "weights" / file, Path(torch.hub.get_dir()) / "checkpoints" / file


def is_cached(file: str) -> bool:
    """Whether a file of that name is there; what it holds is not looked at."""
    return any(path.is_file() for path in _cached_paths(file))


def is_whole(file: str) -> bool:
    """Whether it is there with the right hash, so that `weights_file` fetches nothing.

    It reads all of the file.
    """
    prefix = _hash_prefix(file)
    return prefix is not None and any(
        path.is_file() and _sha256(path).startswith(prefix) for path in _cached_paths(file)
    )


def _hash_prefix(file: str) -> str | None:
    match = re.search(r"-([0-9a-f]{8,64})\.", file)
    return None if match is None else match.group(1)


def weights_file(url: str, network: str) -> Path:
    """The file of that address, from a cache or fetched; its hash is right."""
    file = file_name(url)
    prefix = _hash_prefix(file)
    if prefix is None:
        raise WeightsError(f"{url} publishes no hash in its name, so it is not fetched")
    # Two threads that want the same file: the second finds what the first has fetched. Two
    # processes both fetch it, each under a name of its own.
    with _LOCKS.setdefault(file, threading.Lock()):
        damaged = ""
        for path in _cached_paths(file):
            if path.is_file():
                digest = _sha256(path)
                if digest.startswith(prefix):
                    _check_pinned(file, digest, path)
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


def _pins(path: Path) -> dict[str, str]:
    """file's name -> SHA-256. WeightsError if they cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(digest) for name, digest in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{str(path)!r} is damaged ({one_line(error)}): it holds the SHA-256 of the weights "
            "that were used here; remove it to trust those in the cache anew"
        ) from None


def _check_pinned(file: str, digest: str, path: Path | str) -> None:
    """WeightsError if a file of that name was another one before; else it is from now on this."""
    pins = cache_folder() / "weights" / PINS
    with _PINNING:
        known = _pins(pins)
        if known.setdefault(file, digest) != digest:
            raise WeightsError(
                f"{path} is not the {file} that was used here before: its SHA-256 is "
                f"{digest[:16]}…, that of the first {known[file][:16]}…; if the change is meant, "
                f"remove the line of {file} from {pins}"
            )
        if _pins(pins).get(file) == digest:
            return
        try:
            pins.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(pins, (json.dumps(known, indent=1) + "\n").encode())
        except (OSError, ImageError):
            pass  # of a cache that is read only nothing is remembered


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
    if not url.startswith((*_WEB, "file://")):
        raise ValueError(f"{url} is neither http(s) nor a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    for part in target.parent.glob("*.part"):
        if time.time() - part.stat().st_mtime > _STALE_PARTS:
            part.unlink(missing_ok=True)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    request = urllib.request.Request(url, headers={"User-Agent": "phosphene"})
    try:
        opener = urllib.request.build_opener(_WebRedirects)
        with opener.open(request, timeout=_TIMEOUT) as answer, part.open("wb") as file:
            length = int(answer.headers.get("Content-Length") or 0)
            digest, done = hashlib.sha256(), 0
            with _progress(target.name, length) as advance:
                for block in _blocks(answer, length):
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
        _check_pinned(target.name, digest.hexdigest(), url)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


_WEB = ("https://", "http://")


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to other web servers, and to no file of this machine nor anywhere else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.lower().startswith(_WEB):
            raise OSError(f"the server leads on to {newurl[:100]}, which is not http(s)")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _blocks(answer: Any, length: int) -> Iterator[bytes]:
    """What a server sends. OSError if that is too much, or takes too long."""
    if length > MOST_BYTES:
        raise OSError(f"it has {length} bytes; {MOST_BYTES} are the most")
    begun = since = time.monotonic()
    done = lately = 0
    # What has come by now: `read` would wait for a whole block.
    read = getattr(answer, "read1", answer.read)
    while block := read(1 << 18):
        done, lately, now = done + len(block), lately + len(block), time.monotonic()
        if done > MOST_BYTES:
            raise OSError(f"it sends more than {MOST_BYTES} bytes, which are the most")
        if now - begun > LONGEST:
            raise OSError(f"it takes longer than {LONGEST} s; {done} of {length} bytes have come")
        if now - since > WITHIN:
            if lately < LEAST:
                raise OSError(f"it sent {lately} bytes in {now - since:.0f} s, which is too slow")
            since, lately = now, 0
        yield block


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
