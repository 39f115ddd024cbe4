"""Make the training pictures: 140 classes of Tiny-ImageNet, out of the public archive.

    python -m training.fetch --out tiny-imagenet-140
    python -m training.fetch --out tiny-imagenet-140 --source ~/Downloads/tiny-imagenet-200.zip

The JPEG bytes stay as they are. `training/classes.json` names the classes, in label order: those
of the 200 with something to see. The pictures are for training and measuring only; ImageNet's
terms of access (non-commercial research and education) go with them.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import re
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
# The archive is served without TLS, so its hash is the only proof of what arrived.
SHA256 = "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821"
CLASSES = Path(__file__).with_name("classes.json")
CHUNK = 1 << 20


def download(url: str, target: Path) -> None:
    """Save `url` as `target`, with a progress line. No part of a failed download stays."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
        part = Path(folder) / target.name
        with urllib.request.urlopen(url, timeout=60) as answer, part.open("wb") as file:
            length = int(answer.headers.get("Content-Length") or 0)
            got = 0
            while chunk := answer.read(CHUNK):
                got += file.write(chunk)
                of = f" of {length / 1e6:.1f}" if length else ""
                print(f"\r{got / 1e6:.1f}{of} MB", end="", file=sys.stderr, flush=True)
            print(file=sys.stderr)
        if length and got != length:
            raise ConnectionError(f"{url} broke off after {got} of {length} bytes; try again")
        os.replace(part, target)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack(pictures: Iterable[tuple[bytes, int]], target: Path) -> int:
    """Write `(JPEG bytes, label)` pairs as `training.data` reads them; returns how many."""
    files, labels = [], []
    for jpeg, label in pictures:
        files.append(np.frombuffer(jpeg, np.uint8))
        labels.append(label)
    offsets = np.cumsum([0, *map(len, files)], dtype=np.int64)
    part = target.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(
            file, jpeg=np.concatenate(files), offsets=offsets, labels=np.asarray(labels, np.int16)
        )
    os.replace(part, target)
    return len(labels)


def _number(name: str) -> int:
    """n01443537_12.JPEG -> 12, so that 12 comes after 2."""
    return int(re.findall(r"\d+", Path(name).stem)[-1])


def pick(archive: Path, classes: Mapping[str, str], out: Path) -> dict[str, int]:
    """Write the pictures of `classes` (wnid -> name, in label order) to `out`; returns counts.

    `train.npz`, `val.npz` and `classes.json`, in the format of `training.data.load`. Training
    pictures come in the order of class and number, validation pictures in that of the annotations.
    """
    labels = {wnid: label for label, wnid in enumerate(classes)}
    with zipfile.ZipFile(archive) as zipped:
        names = zipped.namelist()
        notes = next((n for n in names if n.endswith("val/val_annotations.txt")), None)
        if notes is None:
            raise ValueError(f"{archive} has no val/val_annotations.txt; is it Tiny-ImageNet's?")
        root = notes.removesuffix("val/val_annotations.txt")
        of_class: dict[str, list[str]] = {wnid: [] for wnid in classes}
        for name in names:
            parts = name.removeprefix(root).split("/")
            if parts[0] == "train" and name.endswith(".JPEG") and parts[1] in of_class:
                of_class[parts[1]].append(name)
        missing = [wnid for wnid, files in of_class.items() if not files]
        if missing:
            raise ValueError(
                f"{archive} has no training pictures of {len(missing)} of the {len(classes)} "
                f"classes, the first of them {missing[0]} ({classes[missing[0]]})"
            )
        held_out = [
            (row[0], labels[row[1]])
            for row in (line.split("\t") for line in zipped.read(notes).decode().splitlines())
            if len(row) > 1 and row[1] in labels
        ]
        if not held_out:
            raise ValueError(f"{archive} has no validation pictures of the {len(classes)} classes")
        words = dict(classes)
        if f"{root}words.txt" in names:
            lines = zipped.read(f"{root}words.txt").decode().splitlines()
            words |= dict(line.split("\t", 1) for line in lines if "\t" in line)
        counts = {
            "train": pack(
                (
                    (zipped.read(name), labels[wnid])
                    for wnid, files in of_class.items()
                    for name in sorted(files, key=_number)
                ),
                out / "train.npz",
            ),
            "val": pack(
                ((zipped.read(f"{root}val/images/{name}"), label) for name, label in held_out),
                out / "val.npz",
            ),
        }
    rows = [{"wnid": w, "name": name, "words": words[w]} for w, name in classes.items()]
    (out / "classes.json").write_text(json.dumps(rows, indent=1) + "\n")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--source", default=URL, help="address or path (default %(default)s)")
    parser.add_argument("--classes", type=Path, default=CLASSES, help="JSON, wnid to name")
    parser.add_argument("--keep", action="store_true", help="keep the downloaded archive in --out")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    remote = "://" in given.source
    archive = given.out / "tiny-imagenet-200.zip" if remote else Path(given.source)
    fetched = remote and not archive.exists()
    try:
        if fetched:
            download(given.source, archive)
        found = sha256(archive)
        print(f"{archive}  sha256 {found}")
        if found != SHA256:
            message = f"the bundled networks were trained from the archive with sha256 {SHA256}"
            if given.source == URL:
                raise SystemExit(f"{archive} is damaged or another one: {message}")
            print(f"note: {message}", file=sys.stderr)
        counts = pick(archive, json.loads(given.classes.read_text()), given.out)
    except (OSError, ValueError, http.client.HTTPException, zipfile.BadZipFile) as error:
        raise SystemExit(f"{given.source}: {error}") from error
    finally:
        if fetched and not given.keep:
            archive.unlink(missing_ok=True)
    print(f"{given.out}: {counts['train']} training and {counts['val']} validation pictures")


if __name__ == "__main__":
    main()
