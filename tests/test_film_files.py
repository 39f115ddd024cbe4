"""Films in and out: times, colours, sound, text, held to PyAV itself and to the standards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import phosphene as ph
from phosphene.errors import FilmError, SettingsError
from phosphene.films import Frame, check_film_output, film_text
from phosphene.films.formats import ENCODERS, pictures_in
from tests.film_files import make_film, packets, pictures

av = pytest.importorskip("av")

MILLISECOND = Fraction(1, 1000)


def images(count: int, width: int = 64, height: int = 48) -> list[Tensor]:
    return [
        torch.from_numpy(each).permute(2, 0, 1)[None] / 255
        for each in pictures(count, width, height)
    ]


def colour(red: float, green: float, blue: float, count: int = 3) -> Iterator[Tensor]:
    for _ in range(count):
        yield torch.tensor([red, green, blue]).reshape(1, 3, 1, 1).expand(1, 3, 48, 64)


def times_by_pyav(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def difference(image: Tensor, other: Tensor) -> float:
    """Mean difference in 8-bit levels."""
    return float((image - other).abs().mean()) * 255


# --- times -----------------------------------------------------------------------------------

UNEVEN = [500, 600, 900, 1000, 1400, 2000, 2100, 2200, 4000, 4100, 4500, 4601]
FILMS = {
    "29.97": ([1001 * k for k in range(12)], Fraction(1, 30000)),
    "uneven": (UNEVEN, Fraction(1, 3000)),
    "late": ([90_007 + 3003 * k for k in range(12)], Fraction(1, 90000)),
}


@pytest.mark.parametrize("name", FILMS)
def test_times_are_copied_exactly(tmp_path: Path, name: str) -> None:
    times, base = FILMS[name]
    source = make_film(tmp_path / "a.mp4", pictures(12), times=times, base=base)
    frames = list(ph.read_film(source))
    assert [frame.time for frame in frames] == times_by_pyav(source)
    assert [frame.index for frame in frames] == list(range(12))

    info = ph.write_film(tmp_path / "b.mp4", frames)
    assert times_by_pyav(tmp_path / "b.mp4") == times_by_pyav(source)
    assert info.count == 12
    assert ph.film_info(tmp_path / "b.mp4").count == 12


@pytest.mark.parametrize("name", FILMS)
def test_times_need_no_time_base(tmp_path: Path, name: str) -> None:
    times, base = FILMS[name]
    wanted = [time * base for time in times]
    stamped = zip(wanted, images(12), strict=True)
    frames = [Frame(k, time, image) for k, (time, image) in enumerate(stamped)]
    ph.write_film(tmp_path / "a.mp4", frames)
    assert times_by_pyav(tmp_path / "a.mp4") == wanted


def test_a_rate_gives_times_and_the_film_says_it(tmp_path: Path) -> None:
    ph.write_film(tmp_path / "a.mp4", images(5), rate=Fraction(30000, 1001))
    assert times_by_pyav(tmp_path / "a.mp4") == [k * Fraction(1001, 30000) for k in range(5)]
    info = ph.film_info(tmp_path / "a.mp4")
    assert (info.rate, info.count, info.codec) == (Fraction(30000, 1001), 5, "h264")
    assert info.duration == 5 * Fraction(1001, 30000)


@pytest.mark.slow
def test_a_part_is_the_same_as_that_part_of_the_whole(tmp_path: Path) -> None:
    options = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}
    films = [make_film(tmp_path / "a.mp4", pictures(60), options=options)]
    times, base = [3000 * k for k in range(60)], Fraction(1, 90000)
    films.append(
        make_film(tmp_path / "a.ts", pictures(60), times=times, base=base, options=options)
    )
    for film in films:
        whole, start = list(ph.read_film(film)), ph.film_info(film).start
        for begin in (0.0, 0.35, 0.8, 1.1, 1.9):
            part = list(ph.read_film(film, begin=begin, end=begin + 0.2))
            first, last = (start + Fraction(t).limit_denominator(100) for t in (begin, begin + 0.2))
            wanted = [frame for frame in whole if first <= frame.time < last]
            assert [frame.time for frame in part] == [frame.time for frame in wanted]
            assert all(torch.equal(a.image, b.image) for a, b in zip(part, wanted, strict=True))


def test_containers_that_count_coarsely_say_so(tmp_path: Path) -> None:
    for name, tick in (("a.mkv", 1000), ("a.webm", 1000), ("a.gif", 100), ("a.webp", 1000)):
        info = ph.write_film(tmp_path / name, images(6), rate=Fraction(30000, 1001))
        assert any("times are rounded" in note for note in info.notes), name
        got = [frame.time for frame in ph.read_film(tmp_path / name)]
        wanted = [k * Fraction(1001, 30000) for k in range(6)]
        assert all(abs(a - b) <= Fraction(1, 2 * tick) for a, b in zip(got, wanted, strict=True))
    info = ph.write_film(tmp_path / "b.mkv", images(3), rate=25)
    assert info.notes == ()


# --- pixels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rgb", "yuv"),
    [
        ((1, 0, 0), (63, 102, 240)),  # ITU-R BT.709, 3.2 and 3.4, in whole numbers
        ((0, 1, 0), (173, 42, 26)),
        ((0, 0, 1), (32, 240, 118)),
        ((1, 1, 1), (235, 128, 128)),
        ((0, 0, 0), (16, 128, 128)),
    ],
)
def test_colours_are_those_of_bt709_and_tagged(
    tmp_path: Path, rgb: tuple[int, int, int], yuv: tuple[int, int, int]
) -> None:
    ph.write_film(tmp_path / "a.mp4", colour(*rgb), rate=25)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        tags = context.color_range, context.color_primaries, context.color_trc, context.colorspace
        assert tags == (1, 1, 1, 1)
        frame = next(container.decode(video=0))
    levels = [int(np.frombuffer(plane, np.uint8)[0]) for plane in frame.planes]
    assert np.abs(np.subtract(levels, yuv)).max() <= 1
    image = next(ph.read_film(tmp_path / "a.mp4")).image
    wanted = torch.tensor(rgb).reshape(1, 3, 1, 1).expand_as(image)
    assert difference(image, wanted) < 1.5


@pytest.mark.parametrize(
    ("tags", "red", "full"),
    [
        ({"colorspace": 1, "color_range": 1}, (63, 102, 240), False),
        ({"colorspace": 6, "color_range": 1}, (81, 90, 240), False),
        ({"colorspace": 6, "color_range": 2}, (76, 85, 255), True),
        ({"colorspace": 9, "color_range": 1}, (74, 97, 240), False),
        ({}, (81, 90, 240), False),  # of a small film that says nothing, BT.601
    ],
)
def test_a_films_own_matrix_and_range_are_undone(
    tmp_path: Path, tags: dict[str, int], red: tuple[int, int, int], full: bool
) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        frame = av.VideoFrame(64, 48, "yuv444p")
        for plane, level in zip(frame.planes, red, strict=True):
            plane.update(bytes([level]) * plane.buffer_size)
        frame.pts = 0
        frame.color_range = 2 if full else 1
        frame.colorspace = tags.get("colorspace", 2)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    image = next(ph.read_film(path)).image
    assert difference(image, torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1)) < 1.5


def test_ten_bits_are_kept_both_ways(tmp_path: Path) -> None:
    ramp = (torch.arange(256) / 1023 + 0.3).reshape(1, 1, 1, 256).expand(1, 3, 64, 256)
    for codec in ("hevc", "prores"):
        path = tmp_path / f"{codec}.mov"
        ph.write_film(path, [ramp, ramp], rate=25, codec=codec, crf=0 if codec == "hevc" else None)
        image = next(ph.read_film(path)).image
        # A quarter of an 8-bit level: eight bits alone would be off by as much in the mean.
        assert difference(image, ramp) < 0.25, codec
        assert len(image.unique()) > 200


def test_the_lossless_codec_is_lossless(tmp_path: Path) -> None:
    image = torch.rand(1, 3, 49, 63, generator=torch.Generator().manual_seed(0))
    ph.write_film(tmp_path / "a.mkv", [image, 1 - image], rate=25, codec="ffv1")
    first, second = (frame.image for frame in ph.read_film(tmp_path / "a.mkv"))
    assert torch.equal((first * 4095).round(), (image * 4095).round())
    assert torch.equal((second * 4095).round(), ((1 - image) * 4095).round())


def test_the_first_frame_is_what_was_written(tmp_path: Path) -> None:
    smooth = images(4, 160, 96)
    for name in ("a.mp4", "a.webm", "a.webp", "a.gif", "a.mov"):
        ph.write_film(tmp_path / name, smooth, rate=25)
        for frame, image in zip(ph.read_film(tmp_path / name), smooth, strict=True):
            assert difference(frame.image, image) < (10 if name == "a.gif" else 4), name


def test_odd_sides_are_padded_by_their_edge(tmp_path: Path) -> None:
    odd = images(3, 63, 47)
    info = ph.write_film(tmp_path / "a.mp4", odd, rate=25, crf=1)
    assert (info.width, info.height) == (64, 48)
    assert "padded 63x47 -> 64x48, as h264 needs" in info.notes
    image = next(ph.read_film(tmp_path / "a.mp4")).image
    assert difference(image[..., :47, :63], odd[0]) < 3
    assert difference(image[..., :47, 63], odd[0][..., 62]) < 6
    assert ph.write_film(tmp_path / "a.gif", odd, rate=25).width == 63


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [0, 90, 180, -90])
def test_a_turned_film_is_read_upright(tmp_path: Path, angle: int, mirrored: bool) -> None:
    path = make_film(
        tmp_path / "a.mp4", pictures(3), rotation=angle, mirrored=mirrored, options={"crf": "1"}
    )
    image = next(ph.read_film(path)).image
    stored = images(1)[0]
    # FFmpeg's display matrices: degrees anticlockwise, and then the mirror.
    turned = torch.rot90(stored, angle // 90, (-2, -1))
    wanted = turned.flip(-1) if mirrored else turned
    assert difference(image, wanted) < 4
    info = ph.film_info(path)
    assert (info.height, info.width) == tuple(image.shape[-2:])


def test_pixels_become_square_and_sizes_as_asked(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mp4", pictures(3), ratio=Fraction(4, 3))
    info = ph.film_info(path)
    assert (info.width, info.height) == (85, 48)
    assert any("4:3" in note for note in info.notes)
    (small, *_) = ph.read_film(make_film(tmp_path / "b.mp4", pictures(3)), size=32)
    assert tuple(small.image.shape) == (1, 3, 24, 32)
    assert float(small.image.mean()) == pytest.approx(float(images(1)[0].mean()), abs=0.01)


def test_what_is_transparent_lies_over_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (16, 12), (255, 0, 0, 0))
    solid = Image.new("RGBA", (16, 12), (0, 0, 255, 255))
    for name in ("a.gif", "a.webp", "a.png"):
        more: dict[str, Any] = {"append_images": [solid], "duration": 100, "disposal": 2}
        if name == "a.webp":
            more["lossless"] = True
        clear.save(tmp_path / name, save_all=True, **more)
        first, second = (frame.image for frame in ph.read_film(tmp_path / name))
        assert difference(first, torch.ones(1, 3, 1, 1)) < 1, name
        assert difference(second, torch.tensor([0.0, 0, 1]).reshape(1, 3, 1, 1)) < 1, name


def test_frames_of_a_file_have_its_bytes(tmp_path: Path) -> None:
    """8-bit RGB comes through as it is: the same tensors as `load_image` gives."""
    shots = [Image.fromarray(each) for each in pictures(3)]
    shots[0].save(
        tmp_path / "a.webp", save_all=True, append_images=shots[1:], duration=40, lossless=True
    )
    for frame, picture in zip(ph.read_film(tmp_path / "a.webp"), shots, strict=True):
        assert torch.equal(frame.image, ph.load_image(picture))


# --- folders ---------------------------------------------------------------------------------


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for number in (1, 2, 9, 10, 11, 100):
        ph.save_image(torch.full((1, 3, 8, 8), number / 255), tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("no picture")
    frames = list(ph.read_film(tmp_path, rate=10))
    assert [round(float(frame.image.mean()) * 255) for frame in frames] == [1, 2, 9, 10, 11, 100]
    assert [frame.time for frame in frames] == [Fraction(k, 10) for k in range(6)]
    assert len(list(ph.read_film(tmp_path, rate=10, begin=0.1, end=0.3))) == 2
    info = ph.film_info(tmp_path)
    assert (info.count, info.rate, info.width, info.codec) == (6, 24, 8, "pictures")


def test_a_folders_pictures_are_of_one_size(tmp_path: Path) -> None:
    ph.save_image(torch.zeros(1, 3, 8, 8), tmp_path / "a1.png")
    ph.save_image(torch.zeros(1, 3, 8, 9), tmp_path / "a2.png")
    with pytest.raises(FilmError, match=r"a2.png' is 9x8 px, the pictures before it 8x8"):
        list(ph.read_film(tmp_path))


def test_natural_order_of_names(tmp_path: Path) -> None:
    names = ["1.png", "2.png", "10.png", "a1b2.png", "a1b10.png", "a01b11.png", "a2.png", "b.png"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in pictures_in(tmp_path)] == names


# --- sound -----------------------------------------------------------------------------------


def test_sound_is_copied_to_the_bit(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mp4", pictures(40), audio=["aac", "aac"])
    info = ph.write_film(tmp_path / "b.mp4", ph.read_film(source), audio_from=source)
    assert packets(tmp_path / "b.mp4") == packets(source)
    assert len(packets(source)) == 2
    assert info.audio == ("aac, 48000 Hz, stereo, deu", "aac, 48000 Hz, stereo, eng")
    with av.open(str(source)) as one, av.open(str(tmp_path / "b.mp4")) as two:
        for a, b in zip(one.streams.audio, two.streams.audio, strict=True):
            assert a.codec_context.extradata == b.codec_context.extradata
            assert (a.language, a.time_base, a.start_time) == (
                b.language,
                b.time_base,
                b.start_time,
            )


def test_sound_is_cut_between_packets_and_stays_in_time(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mp4", pictures(90), audio=["aac"])
    frames = ph.read_film(source, begin=0.5, end=2.3)
    ph.write_film(tmp_path / "b.mp4", frames, audio_from=source, begin=0.5, end=2.3)
    assert times_by_pyav(tmp_path / "b.mp4")[0] == 0
    (whole,), (part,) = packets(source), packets(tmp_path / "b.mp4")
    at = [data for *_, data in whole].index(part[0][3])
    assert [data for *_, data in part] == [data for *_, data in whole[at : at + len(part)]]
    packet = Fraction(1024, 48000)
    for (time, *_), (was, *_) in zip(part, whole[at:], strict=False):
        shifted = Fraction(was, 48000) - Fraction(1, 2)
        assert abs(Fraction(time, 48000) - shifted) <= Fraction(1, 48000)
    assert 0 <= Fraction(part[0][0], 48000) <= packet
    assert abs(Fraction(part[-1][0], 48000) + packet - Fraction(18, 10)) <= packet


def test_sound_that_a_container_cannot_hold_is_left_out_and_said(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mp4", pictures(9), audio=["aac"])
    for name in ("b.webm", "b.gif"):
        info = ph.write_film(tmp_path / name, ph.read_film(source), audio_from=source)
        assert info.audio == ()
        assert any("cannot hold it" in note and "aac" in note for note in info.notes)
    silent = make_film(tmp_path / "c.mp4", pictures(9))
    assert ph.write_film(tmp_path / "d.mp4", ph.read_film(silent), audio_from=silent).audio == ()


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    times = [33 * k for k in range(9)]
    source = make_film(
        tmp_path / "a.mkv",
        pictures(9),
        times=times,
        base=MILLISECOND,
        audio=["aac", "mp2"],
        subtitles=True,
    )
    info = ph.film_info(source)
    assert info.notes == ("1 subtitle track left out",)
    assert info.audio == ("aac, 48000 Hz, stereo, deu", "mp2, 48000 Hz, stereo, eng")
    assert info.count == 9


# --- files -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.gif", "a.webp"])
def test_a_long_text_is_found_again(tmp_path: Path, name: str) -> None:
    text = '{"format": 2, "words": "' + "é∂<&>\\n" * 150_000 + '"}'
    assert len(text.encode()) > 2**20
    ph.write_film(tmp_path / name, images(3), rate=25, metadata=text)
    assert film_text(tmp_path / name) == text
    assert len(list(ph.read_film(tmp_path / name))) == 3
    ph.write_film(tmp_path / name, images(3), rate=25, overwrite=True)
    assert film_text(tmp_path / name) is None


@pytest.mark.slow
@pytest.mark.parametrize("codec", ENCODERS)
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, codec: str) -> None:
    suffix = {"vp9": ".webm", "prores": ".mov", "gif": ".gif", "webp": ".webp", "ffv1": ".mkv"}
    ends = suffix.get(codec, ".mp4")
    for name in ("a", "b"):
        ph.write_film(tmp_path / f"{name}{ends}", images(12), rate=25, codec=codec)
    assert (tmp_path / f"a{ends}").read_bytes() == (tmp_path / f"b{ends}").read_bytes()
    if ends == ".mp4":
        data = (tmp_path / f"a{ends}").read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")


def test_any_codec_is_read_by_what_it_is(tmp_path: Path) -> None:
    times = [33 * k for k in range(6)]
    for name, codec, form in (
        ("a.avi", "mpeg4", "avi"),
        ("a.flv", "flv", "flv"),
        ("a.mpg", "mpeg2video", "mpeg"),
        ("a.webm", "libvpx-vp9", "webm"),
        ("a.dat", "libx264", "matroska"),  # the suffix says nothing
    ):
        base = MILLISECOND if form in ("webm", "matroska") else Fraction(1, 30)
        film = make_film(
            tmp_path / name,
            pictures(6),
            codec=codec,
            form=form,
            base=base,
            times=times if base == MILLISECOND else None,
        )
        frames = list(ph.read_film(film))
        assert len(frames) == 6, name
        assert difference(frames[3].image, images(4)[3]) < 16
        assert [frame.time for frame in frames] == times_by_pyav(film)


def test_a_film_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken() -> Iterator[Tensor]:
        yield from images(4)
        raise KeyboardInterrupt

    path = tmp_path / "a.mp4"
    with pytest.raises(KeyboardInterrupt):
        ph.write_film(path, broken(), rate=25)
    assert list(tmp_path.iterdir()) == []
    ph.write_film(path, images(2), rate=25)
    kept = path.read_bytes()
    with pytest.raises(FilmError, match="already there"):
        ph.write_film(path, images(2), rate=25)
    with pytest.raises(KeyboardInterrupt):
        ph.write_film(path, broken(), rate=25, overwrite=True)
    assert path.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    two = images(2)
    cases: list[tuple[str, str, dict[str, object]]] = [
        ("a.xyz", r"unknown suffix '.xyz'; films are written as .mp4", {}),
        ("a", r"has no suffix; films are written as", {}),
        ("a.mp4", r"there is no codec 'h266'; the closest are h264", {"codec": "h266"}),
        ("a.webm", r"a .webm file does not hold h264; it holds av1, vp9", {"codec": "h264"}),
        ("a.mp4", r"crf is 99; h264 takes 0", {"crf": 99}),
        ("a.gif", r"crf is 3; gif has no such choice", {"crf": 3}),
        ("no/a.mp4", r"there is no folder", {}),
        ("a.mp4", r"'b.mp4'|there is no file", {"audio_from": tmp_path / "b.mp4"}),
    ]
    for name, message, options in cases:
        with pytest.raises(FilmError, match=message):
            ph.write_film(tmp_path / name, two, rate=25, **options)  # pyright: ignore
    with pytest.raises(FilmError, match="there are no frames"):
        ph.write_film(tmp_path / "a.mp4", [], rate=25)
    with pytest.raises(SettingsError, match="need a rate"):
        ph.write_film(tmp_path / "a.mp4", two)
    with pytest.raises(FilmError, match=r"frame 1 is 63x47 px, those before it 64x48"):
        ph.write_film(tmp_path / "a.mp4", [two[0], images(1, 63, 47)[0]], rate=25)
    with pytest.raises(FilmError, match="frame 1 holds values that are infinite"):
        ph.write_film(tmp_path / "a.mp4", [two[0], two[1] / 0], rate=25)
    with pytest.raises(FilmError, match="frame 1 is at 0 s, not after the one before it"):
        ph.write_film(tmp_path / "a.mp4", [Frame(k, Fraction(0), two[k]) for k in (0, 1)])
    assert list(tmp_path.iterdir()) == []


def test_an_output_is_checked_before_any_work(tmp_path: Path) -> None:
    assert check_film_output(tmp_path / "a.mp4") == tmp_path / "a.mp4"
    (tmp_path / "a.mp4").touch()
    with pytest.raises(FilmError, match="already there"):
        check_film_output(tmp_path / "a.mp4")
    assert check_film_output(tmp_path / "a.mp4", overwrite=True)


@pytest.mark.slow
def test_neither_ffmpeg_nor_torch_where_it_does_not_belong(tmp_path: Path) -> None:
    """This process never loads FFmpeg; the one that does never loads torch; checks load neither."""
    ph.write_film(tmp_path / "a.mp4", images(2), rate=25, metadata="x")
    checks = (
        "import sys; from phosphene.films import check_film_output, film_text, Frame; "
        f"check_film_output({str(tmp_path / 'b.mp4')!r}); "
        f"assert film_text({str(tmp_path / 'a.mp4')!r}) == 'x'; "
        "assert not {'av', 'torch', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    child = (
        "import sys; from phosphene.films import child, decode, encode; "
        "assert 'av' in sys.modules; assert 'torch' not in sys.modules"
    )
    reading = (
        "import sys, phosphene as ph; "
        f"assert len(list(ph.read_film({str(tmp_path / 'a.mp4')!r}))) == 2; "
        "assert 'av' not in sys.modules; assert 'cv2' not in sys.modules"
    )
    for code in (checks, child, reading):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
