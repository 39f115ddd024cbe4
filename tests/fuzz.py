"""Damaged pictures, weights, recipes, requests and texts, seeded, until the time is over.

    python -m tests.fuzz SECONDS SEED

Each goes through the command line, in a process whose memory is bounded. Nothing but the exit codes
that are documented may come of it, one line for an error, and no file.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from phosphene.cli import main
from tests import toy_network

MEMORY = 12 * 10**9  # bytes of addresses; torch reserves some
TOY = "tests.toy_network:net"
QUICK = ("--network", TOY, "--dry-run", "--quiet")
TOKENS = [
    "second",
    "third",
    "2",
    ".5",
    "1e999",
    "-",
    "+",
    "*",
    "(",
    ")",
    "[",
    "]",
    ",",
    ":",
    "=",
    '"',
    "'",
    "@image",
    "tv()",
    "guide(",
    "layer(",
    "norm=",
    "logit(",
    "10",
    "0.1",
    ":1-4",
    "none",
    "true",
    "\x00",
    "ÿ",
    "�",
    "\u202e",
    "é",
    "99999999999999999999",
    "direction(",
    "channels(",
]


class Corpus:
    """Whole files, and what makes damaged ones of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.pictures = {}
        noise = Image.effect_noise((40, 30), 80)
        for suffix in ("png", "jpg", "webp", "tif", "gif", "bmp"):
            out = io.BytesIO()
            noise.convert("RGB").save(out, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))
            self.pictures[suffix] = out.getvalue()
        self.weights = {}
        state = toy_network.net().module.state_dict()
        for name, zipped in (("zip.pth", True), ("legacy.pth", False)):
            out = io.BytesIO()
            torch.save(state, out, _use_new_zipfile_serialization=zipped)
            self.weights[name] = out.getvalue()
        from safetensors.torch import save

        self.weights["w.safetensors"] = save(state)
        (folder / "sky.png").write_bytes(self.pictures["png"])
        whole = ["dream", "sky.png", "--objective", "second", "--steps", "1", "--octaves", "1"]
        run([*whole, "-o", "out.png", "--recipe", "r.json", "--save-request", "q.json",
             "--network", TOY, "--quiet"], folder)  # fmt: skip
        self.recipe = (folder / "r.json").read_bytes()
        self.request = (folder / "q.json").read_bytes()
        self.made = (folder / "out.png").read_bytes()
        for name in ("r.json", "q.json", "out.png"):
            (folder / name).unlink()

    def damaged(self, data: bytes) -> bytes:
        """Bytes changed, cut out, doubled or put in, a few times."""
        found = bytearray(data)
        for _ in range(self.random.randint(1, 6)):
            at = self.random.randrange(len(found) + 1)
            length = self.random.choice((1, 2, 4, 16, 200))
            kind = self.random.randrange(4)
            if kind == 0:
                found[at : at + length] = self.random.randbytes(length)
            elif kind == 1:
                del found[at : at + length]
            elif kind == 2:
                found[at:at] = found[at : at + length]
            else:
                found[at : at + 4] = self.random.choice(
                    (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff")
                )
        return bytes(found)

    def text(self) -> str:
        """An objective's text, or nothing of the kind."""
        parts = self.random.choices(TOKENS, k=self.random.randint(1, 12))
        return self.random.choice(("", " ")).join(parts)

    def command(self) -> list[str]:
        """A command about something damaged, whose file is written."""
        kind = self.random.choice(("picture", "weights", "recipe", "request", "made", "text"))
        if kind == "text":
            return ["visualize", *QUICK, "--", self.text()]
        if kind in ("picture", "weights"):
            name, data = self.random.choice(sorted(getattr(self, f"{kind.rstrip('s')}s").items()))
        else:
            name = {"recipe": "r.json", "request": "q.json", "made": "out.png"}[kind]
            data = getattr(self, kind)
        path = self.folder / f"damaged-{name.rpartition('.')[0]}.{name.rpartition('.')[2]}"
        path.write_bytes(self.damaged(data))
        return {
            "picture": ["dream", path.name, "--objective", "second", *QUICK],
            "weights": ["layers", f"file:{path.name}@{TOY}"],
            "recipe": ["replay", path.name, "--network", TOY, "--quiet"],
            "made": ["replay", path.name, "--network", TOY, "--quiet"],
            "request": ["run", path.name, "--network", TOY, "--dry-run", "--quiet"],
        }[kind]


def run(words: list[str], folder: Path) -> tuple[object, str]:
    """The exit code of a command and what it told; its exception where there was one."""
    before = os.getcwd()
    os.chdir(folder)
    err = io.StringIO()
    try:
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            return main(words), err.getvalue()
    except BaseException as error:
        return repr(error), err.getvalue()
    finally:
        os.chdir(before)


def problem(code: object, told: str, left: set[str]) -> str | None:
    """What should not have come of a command."""
    if code not in (0, 1, 2, 3):
        return f"ended with {code}"
    lines = [line for line in told.splitlines() if line.startswith("phosphene: ")]
    # What ends the line of an error that nobody foresaw. torch has an "unexpected EOF" of its own.
    if "Traceback" in told or "is worth a report" in told:
        return told
    if code in (1, 2) and len(lines) != 1:
        return f"{len(lines)} lines: {told}"
    return f"left {sorted(left)}" if left else None


def fuzz(seconds: float, seed: int, tell: Callable[[str], object] = print) -> int:
    """How many commands came out as none may."""
    bad = count = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = Corpus(folder, seed)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            words = corpus.command()
            there = set(os.listdir(folder))
            code, told = run(words, folder)
            count += 1
            if found := problem(code, told, set(os.listdir(folder)) - there):
                bad += 1
                tell(
                    f"seed {seed}, command {count}: {words!r}: {found}".encode(
                        "unicode_escape"
                    ).decode()
                )
            for path in folder.glob("damaged-*"):
                path.unlink()
    tell(f"{count} commands, {bad} came out as none may")
    return bad


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.exit(min(fuzz(float(sys.argv[1]), int(sys.argv[2])), 1))
