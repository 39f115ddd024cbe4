"""Films that are none, are damaged, or mean harm: one clear line each, and nothing else happens."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import phosphene as ph
from phosphene.errors import FilmError, MissingExtraError
from phosphene.films.formats import demuxer_of
from phosphene.films.process import Child
from tests.film_files import make_film, pictures

av = pytest.importorskip("av")


def refused(path: str | Path, **options: float) -> str:
    """The one line that reading `path` ends with."""
    with pytest.raises(FilmError) as caught:
        for _ in ph.read_film(path, **options):  # pyright: ignore[reportArgumentType]
            pass
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def plain(path: Path) -> Path:
    return make_film(path, pictures(30))


def faststart(path: Path) -> Path:
    return make_film(path, pictures(30), container_options={"movflags": "faststart"})


def corrupt(path: Path) -> Path:
    data = bytearray(faststart(path).read_bytes())
    start = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[start : start + 400] = bytes(each ^ 0x5A for each in data[start : start + 400])
    path.write_bytes(data)
    return path


def sound_alone(path: Path) -> Path:
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def no_frames(path: Path) -> Path:
    """An MP4 whose video track holds no samples: fragments that never come."""
    with av.open(str(path), "w", options={"movflags": "empty_moov+frag_keyframe"}) as output:
        stream = output.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.start_encoding()
    return path


def huge(path: Path) -> Path:
    """100,000 × 100,000 px, says the AVI's header."""
    film = make_film(path, pictures(3), codec="ffv1", form="avi")
    data = bytearray(film.read_bytes())
    at = data.index(b"strf") + 12
    data[at : at + 8] = struct.pack("<II", 100_000, 100_000)
    path.write_bytes(data)
    return path


def endless_gif(path: Path) -> Path:
    """A GIF of two frames that loops for ever, and never comes to its trailer."""
    shots = [Image.fromarray(each) for each in pictures(2)]
    shots[0].save(path, format="GIF", save_all=True, append_images=shots[1:], duration=40, loop=0)
    path.write_bytes(path.read_bytes()[:-1])
    return path


def wide_gif(path: Path) -> Path:
    shots = [Image.fromarray(each) for each in pictures(2)]
    shots[0].save(path, format="GIF", save_all=True, append_images=shots[1:], duration=40)
    data = bytearray(path.read_bytes())
    data[6:10] = struct.pack("<HH", 65535, 65535)
    path.write_bytes(data)
    return path


def hdr(path: Path) -> Path:
    return make_film(path, pictures(3), tags={"color_trc": 16, "color_primaries": 9})


def nested(path: Path) -> Path:
    """Twenty thousand boxes, each within the one before."""
    boxes = b"".join(struct.pack(">I", 200_000 - 8 * k) + b"moov" for k in range(20_000))
    path.write_bytes(b"\0\0\0\x10ftypisom\0\0\0\0" + boxes)
    return path


def noise(path: Path) -> Path:
    rng = np.random.default_rng(0)
    path.write_bytes(b"\x1a\x45\xdf\xa3" + rng.bytes(100_000))
    return path


def text(words: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(words)
        return path

    return make


def picture(kind: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        Image.new("RGB", (16, 12), "red").save(path, format=kind)
        return path

    return make


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "not there": (lambda path: path, "there is no file"),
    "empty": (text(b""), "is empty"),
    "a text": (text(b"hello, world"), "is not a film that can be read"),
    "a picture": (picture("JPEG"), r"is a picture \(JPEG\)"),
    "a PNG": (picture("PNG"), r"is a picture \(PNG\)"),
    "a still GIF": (picture("GIF"), r"is a picture \(GIF\)"),
    "a still WebP": (picture("WEBP"), r"is a picture \(WEBP\)"),
    "a pipe": (pipe, "is not a regular file"),
    "a playlist": (text(b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"), "is a playlist"),
    "a list to join": (text(b"ffconcat version 1.0\nfile /etc/passwd\n"), "is a playlist"),
    "DASH": (text(b'<?xml version="1.0"?>\n<MPD xmlns="urn:x">'), "is a playlist"),
    "no index": (lambda path: cut(plain(path), 0.5), "is damaged or cut short"),
    "cut short": (lambda path: cut(faststart(path), 0.7), r"is cut short: \d+ of its \d+ bytes"),
    "corrupt": (corrupt, r"is damaged near 0\.\d+ s"),
    "sound alone": (sound_alone, "has no video track"),
    "no frames": (no_frames, "holds no frames|has no video track|is damaged"),
    "huge": (huge, "the limit is 67 megapixels"),
    "a wide GIF": (wide_gif, "the limit is 67 megapixels"),
    "an endless GIF": (endless_gif, "is cut short"),
    "HDR": (hdr, r"is HDR \(PQ\), which is not read"),
    "nested boxes": (nested, "is damaged or cut short"),
    "noise": (noise, "is damaged or cut short"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_end_in_one_line(tmp_path: Path, name: str) -> None:
    make, message = HOSTILE[name]
    path = make(tmp_path / "film.mp4")
    assert re.search(message, refused(path))
    if name != "corrupt":  # in its middle, which nobody knows before it is decoded
        with pytest.raises(FilmError, match=message):
            ph.film_info(path)


@pytest.mark.parametrize(
    "address",
    [
        "concat:a.mp4|b.mp4",
        "subfile,,start,0,end,0,,:/etc/passwd",
        "http://127.0.0.1/a.mp4",
        "data:video/mp4;base64,AAAA",
        "pipe:0",
        "file:a.mp4",
    ],
)
def test_addresses_are_refused_before_anything_is_opened(address: str) -> None:
    assert "is an address" in refused(address)


def test_a_file_of_that_very_name_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain(tmp_path / "plain.mp4").rename(tmp_path / "concat:a.mp4")
    assert len(list(ph.read_film("concat:a.mp4"))) == 30


def test_nothing_is_fetched(tmp_path: Path) -> None:
    """A playlist under another name asks nobody."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.5)
        asked: list[object] = []

        def wait() -> None:
            with suppress(TimeoutError):
                asked.append(server.accept())

        waiter = threading.Thread(target=wait)
        waiter.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        path = tmp_path / "a.mp4"
        path.write_text(f"\n#EXTM3U\n#EXTINF:1,\n{address}\n")
        refused(path)
        refused(address)
        waiter.join()
    assert asked == []


def test_times_that_make_no_sense(tmp_path: Path) -> None:
    film = plain(tmp_path / "a.mp4")
    assert "begin is 5 s; " in refused(film, begin=5)
    assert "ends at 1 s" in refused(film, begin=5)
    assert "begin must come before end" in refused(film, begin=0.5, end=0.5)
    assert "begin is -1" in refused(film, begin=-1)
    assert "end is nan" in refused(film, end=float("nan"))


def test_a_process_that_dies_is_an_error(tmp_path: Path) -> None:
    film = make_film(tmp_path / "a.mp4", pictures(200, 320, 240))
    frames = ph.read_film(film)
    next(frames)
    child = frames.gi_frame.f_locals["child"]  # pyright: ignore[reportAttributeAccessIssue]
    child._process.send_signal(signal.SIGSEGV)
    with pytest.raises(FilmError, match=r"a.mp4': FFmpeg's process ended with SIGSEGV"):
        list(frames)


def test_a_process_that_stays_silent_is_given_up() -> None:
    task = {"task": "write"}  # it waits for more, and so do we
    with Child({**task, "bytes": 0}, "write 'a.mp4'", patience=0.2) as child:
        child._process.send_signal(signal.SIGSTOP)
        with pytest.raises(FilmError, match=r"cannot write 'a.mp4': nothing happened for 0\.2 s"):
            child.receive()


def test_reading_that_stops_leaves_no_process(tmp_path: Path) -> None:
    film = make_film(tmp_path / "a.mp4", pictures(200, 320, 240))
    frames = ph.read_film(film)
    next(frames)
    child = frames.gi_frame.f_locals["child"]  # pyright: ignore[reportAttributeAccessIssue]
    frames.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert child._process.returncode is not None


def bounded(code: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-c", f"from phosphene.films.child import grant, limit; {code}"]
    return subprocess.run(run, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems bound less")
def test_memory_and_time_are_bounded() -> None:
    done = bounded("limit(memory=2**30); bytearray(2**31)")
    assert done.stderr.strip().endswith("MemoryError")
    # Granted anew, it goes on; else it ends.
    loop = "import time; end = time.process_time() + 2.5\nwhile time.process_time() < end: "
    assert bounded(f"grant(0); {loop}grant(0)").returncode == 0
    assert bounded("grant(0)\nwhile True: pass").returncode == -signal.SIGXCPU


def test_a_full_disk_is_said() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    task = {
        "task": "write",
        "path": "/dev/full",
        "shown": "a.mkv",
        "muxer": "matroska",
        "codec": "ffv1",
        "size": [64, 48],
        "rate": [30, 1],
        "time_base": [1, 30],
        "shift": [0, 1],
        "options": {},
        **dict.fromkeys(("audio_from", "audio_shown", "begin", "end", "text")),
    }
    levels = np.random.default_rng(0).integers(0, 4096, (3, 48, 64), np.uint16)
    with Child(task, "write 'a.mkv'") as child, pytest.raises(FilmError) as caught:
        fill(child, levels.data.cast("B"))
    assert str(caught.value) == "cannot write 'a.mkv': the disk is full"


def fill(child: Child, levels: memoryview) -> None:
    for index in range(200):
        child.send({"pts": index, "duration": 1}, levels)
    child.send({"end": 200})
    child.receive()


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = plain(tmp_path / "a.mp4")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for ask in (
        lambda: next(ph.read_film(film)),
        lambda: ph.film_info(film),
        lambda: ph.write_film(tmp_path / "b.mp4", []),
    ):
        with pytest.raises(MissingExtraError, match=r"pip install .phosphene\[film\]"):
            ask()


def test_each_kind_has_one_demuxer(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for head, demuxer in (
        (b"\0\0\0\x20ftypqt  ", "mov"),
        (b"\x1a\x45\xdf\xa3....", "matroska"),
        (b"RIFF....AVI LIST", "avi"),
        (b"GIF89a", "gif"),
        ((b"G" + bytes(187)) * 3, "mpegts"),
        ((b"....G" + bytes(187)) * 3, "mpegts"),
        (b"OggS", "ogg"),
    ):
        path.write_bytes(head)
        assert demuxer_of(path) == demuxer
    path.write_bytes(b"\0\0\0\x20ftypavif")
    with pytest.raises(FilmError, match="is a picture"):
        demuxer_of(path)
