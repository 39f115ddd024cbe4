"""Pictures in and out, against files made here by hand or by Pillow."""

from __future__ import annotations

import io
import itertools
import json
import os
import struct
import subprocess
import sys
import time
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

from phosphene.errors import ImageError, SettingsError
from phosphene.image import (
    SUFFIXES,
    check_output,
    codec,
    draw_sky,
    files,
    load_image,
    load_mask,
    metadata,
    read_image,
    read_recipe,
    resize,
    save_image,
    size_of,
    start_picture,
    tensor,
    to_uint8,
    write_atomically,
)
from phosphene.image.start import DEVIATION

RECIPE = json.dumps(
    {"name": "dream", "text": '<!-- "é" ]]> & \u2028 😀\\n', "n": [1, 2.5]}, ensure_ascii=False
)
LOSSLESS = [".png", ".tif", ".tiff"]


def noise(h: int, w: int, channels: int = 3, seed: int = 0) -> torch.Tensor:
    levels = np.random.default_rng(seed).integers(0, 256, (1, channels, h, w))
    return torch.from_numpy(levels).float() / 255


def ramp(h: int, w: int) -> torch.Tensor:
    """Smooth colours, which a lossy format keeps."""
    y, x = torch.meshgrid(torch.linspace(0, 1, h), torch.linspace(0, 1, w), indexing="ij")
    return torch.stack([x, y, 1 - x * y])[None]


def bytes_of(picture: torch.Tensor) -> np.ndarray:
    """(1, C, H, W) to (H, W, C) uint8, by other means than the module's."""
    return np.rint(picture[0].numpy().transpose(1, 2, 0) * 255).astype(np.uint8)


# --- ICC profiles, made by hand from the ICC.1 specification -----------------------------------


def icc(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"test", 0x02400000, b"mntr", space, b"XYZ "
    )
    head += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp")
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _name(text: str) -> bytes:
    data = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(data)) + data + b"\0" * 78


D50 = _xyz(0.9642, 1, 0.8249)
# The primaries of sRGB, adapted to D50.
RED, GREEN, BLUE = (
    _xyz(0.43607, 0.22249, 0.01392),
    _xyz(0.38515, 0.71687, 0.09708),
    _xyz(0.14307, 0.06061, 0.71410),
)


def rgb_profile(name: str, red: bytes, green: bytes, blue: bytes, gamma: float) -> bytes:
    curve = _curve(gamma)
    colours = {b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue}
    curves = {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    return icc(b"RGB ", {b"desc": _name(name), b"wtpt": D50, **colours, **curves})


def grey_profile(gamma: float) -> bytes:
    return icc(b"GRAY", {b"desc": _name("plain grey"), b"wtpt": D50, b"kTRC": _curve(gamma)})


def srgb_of_linear(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    low = linear <= 0.0031308
    return np.where(low, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


# --- round trips -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("with_alpha", [False, True])
def test_lossless_formats_give_back_every_level(tmp_path, suffix, with_alpha):
    picture = noise(16, 48)
    alpha = noise(16, 48, 1, seed=1) if with_alpha else None
    path = save_image(picture, tmp_path / f"a{suffix}", alpha=alpha)
    back = read_image(path)
    assert torch.equal(back.pixels, picture)
    assert back.pixels.dtype == torch.float32
    assert back.pixels.is_contiguous()
    assert back.notes == ()
    if alpha is None:
        assert back.alpha is None
    else:
        assert back.alpha is not None
        assert torch.equal(back.alpha, alpha)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_formats_come_close(tmp_path, suffix):
    path = save_image(ramp(60, 90), tmp_path / f"a{suffix}")
    back = read_image(path)
    difference = (back.pixels - ramp(60, 90)).abs()
    assert difference.mean() < 0.01
    assert difference.max() < 0.05
    assert back.notes == ()


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (3, 2)])
def test_small_and_thin_pictures_of_every_format(tmp_path, suffix, shape):
    path = save_image(torch.full((1, 3, *shape), 0.4), tmp_path / f"a{suffix.upper()}")
    back = load_image(path)
    assert back.shape == (1, 3, *shape)
    assert (back - 0.4).abs().max() < 0.02


def test_jpeg_of_pure_noise_is_written(tmp_path):
    # Noise at high quality outgrows the buffers that encoders guess from the number of pixels.
    save_image(noise(300, 400), tmp_path / "a.jpg", recipe="x" * 90_000)
    assert load_image(tmp_path / "a.jpg").shape == (1, 3, 300, 400)


def test_jpeg_keeps_fine_colour(tmp_path):
    stripes = torch.zeros(1, 3, 16, 64)
    stripes[:, 0, :, ::2] = 0.9
    stripes[:, 2, :, 1::2] = 0.9
    back = load_image(save_image(stripes, tmp_path / "a.jpg"))
    assert (back - stripes).abs().mean() < 0.03  # chroma at half the resolution gives 0.3


def test_jpeg_lays_what_is_transparent_over_white(tmp_path):
    alpha = torch.ones(1, 1, 32, 32)
    alpha[..., :16] = 0
    back = load_image(save_image(torch.zeros(1, 3, 32, 32), tmp_path / "a.jpg", alpha=alpha))
    assert back[..., :12].min() > 0.97
    assert back[..., 20:].max() < 0.03


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_a_fully_transparent_picture_keeps_its_colours(tmp_path, suffix):
    picture = ramp(20, 30)
    path = save_image(picture, tmp_path / f"a{suffix}", alpha=torch.zeros(1, 20, 30))
    back = read_image(path)
    assert back.alpha is not None
    assert not back.alpha.any()
    assert (back.pixels - picture).abs().mean() < 0.03


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_the_same_picture_gives_the_same_bytes(tmp_path, suffix, monkeypatch):
    first = save_image(ramp(9, 9), tmp_path / f"a{suffix}").read_bytes()
    stamped = codec._srgb_profile()
    assert stamped[24:36] == struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    assert save_image(ramp(9, 9), tmp_path / f"b{suffix}").read_bytes() == first


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_output_says_srgb(tmp_path, suffix):
    with Image.open(save_image(ramp(9, 9), tmp_path / f"a{suffix}")) as file:
        if suffix == ".png":
            assert "srgb" in file.info
        else:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(file.info["icc_profile"]))
            assert "sRGB" in ImageCms.getProfileDescription(profile)


# --- what a file may hold ----------------------------------------------------------------------

GREYS = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".gif"])
def test_greyscale_becomes_three_equal_channels(tmp_path, suffix):
    Image.fromarray(GREYS).save(tmp_path / f"a{suffix}")
    picture = read_image(tmp_path / f"a{suffix}")
    assert picture.pixels.shape == (1, 3, 4, 6)
    for channel in range(3):
        assert np.array_equal(bytes_of(picture.pixels)[..., channel], GREYS)
    assert picture.alpha is None


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_one_bit(tmp_path, suffix):
    bits = GREYS > 100
    Image.fromarray(bits).save(tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as file:
        assert file.mode == "1"
    assert np.array_equal(load_image(tmp_path / f"a{suffix}")[0, 1].numpy(), bits)


def test_palette(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "L").convert("L")
    image = Image.frombytes("P", (2, 2), image.tobytes())
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    image.save(tmp_path / "a.png")
    expected = [[[255, 0, 0], [0, 255, 0]], [[10, 20, 30], [0, 255, 0]]]
    assert np.array_equal(bytes_of(load_image(tmp_path / "a.png")), expected)
    # One transparent colour, and an opacity for each.
    for transparency, opacity in (
        (1, [[255, 0], [255, 0]]),
        (b"\x10\x80\xff", [[16, 128], [255, 128]]),
    ):
        image.save(tmp_path / "b.png", transparency=transparency)
        picture = read_image(tmp_path / "b.png")
        assert picture.alpha is not None
        assert np.array_equal(bytes_of(picture.alpha)[..., 0], opacity)
        assert np.array_equal(bytes_of(picture.pixels), expected)


def test_grey_and_alpha(tmp_path):
    alpha = 255 - GREYS
    Image.merge("LA", [Image.fromarray(GREYS), Image.fromarray(alpha)]).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    assert picture.alpha is not None
    assert np.array_equal(bytes_of(picture.alpha)[..., 0], alpha)
    assert np.array_equal(bytes_of(picture.pixels)[..., 2], GREYS)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_transparent_colour(tmp_path, mode):
    image = Image.fromarray(GREYS).convert(mode)
    image.save(tmp_path / "a.png", transparency=50 if mode == "L" else (50, 50, 50))
    picture = read_image(tmp_path / "a.png")
    assert picture.alpha is not None
    assert np.array_equal(bytes_of(picture.alpha)[..., 0], np.where(GREYS == 50, 0, 255))
    assert np.array_equal(bytes_of(picture.pixels)[..., 0], GREYS)


DEEP = np.array([[0, 1, 255, 256], [257, 32768, 65534, 65535]], np.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_greyscale_keeps_its_depth(tmp_path, suffix):
    Image.fromarray(DEEP).save(tmp_path / f"a{suffix}")
    pixels = load_image(tmp_path / f"a{suffix}")
    assert torch.equal(pixels[0, 2], torch.from_numpy(DEEP.astype(np.float32) / 65535))
    assert torch.equal(pixels[0, 0], pixels[0, 2])


def test_big_endian_and_white_is_zero_tiff(tmp_path):
    for photometric in (0, 1):
        path = tmp_path / f"{photometric}.tif"
        order = ">" if photometric else "<"
        data = DEEP.astype(order + "u2").tobytes()
        tags = [(256, 4), (257, 2), (258, 16), (259, 1), (262, photometric), (273, 8), (278, 2)]
        tags.append((279, len(data)))
        table = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
        head = (b"MM" if photometric else b"II") + struct.pack(order + "HI", 42, 8 + len(data))
        table = struct.pack(order + "H", len(tags)) + table + struct.pack(order + "I", 0)
        path.write_bytes(head + data + table)
        expected = DEEP.astype(np.float32) / 65535
        got = load_image(path)[0, 0].numpy()
        assert np.allclose(got, expected if photometric else 1 - expected, atol=1e-7)


def test_sixteen_bit_colour(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    row = struct.pack(">6H", 65535, 0, 32896, 257, 514, 65535)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    expected = torch.tensor([[1, 0, 32896 / 65535], [257 / 65535, 514 / 65535, 1]])
    assert torch.allclose(load_image(tmp_path / "a.png")[0, :, 0].T, expected, atol=1 / 255)


def test_float_tiff(tmp_path):
    values = np.array([[0, 0.25, 1 / 3], [0.5, 0.999, 1]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    picture = read_image(tmp_path / "a.tif")
    assert np.array_equal(picture.pixels[0, 1].numpy(), values)
    assert picture.notes == ()

    Image.fromarray(values * 8 - 4).save(tmp_path / "b.tif")
    picture = read_image(tmp_path / "b.tif")
    assert np.allclose(picture.pixels[0, 1].numpy(), values, atol=1e-6)
    assert picture.notes == ("values -4 to 4 stretched from black to white",)

    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "c.tif")
    picture = read_image(tmp_path / "c.tif")
    assert picture.pixels[0, 0, 0, 0] == 0.25
    assert picture.notes == ("1 values that are not finite read as the least",)

    Image.fromarray(np.full((2, 2), np.inf, np.float32)).save(tmp_path / "d.tif")
    with pytest.raises(ImageError, match="no finite value"):
        read_image(tmp_path / "d.tif")


def test_thirty_two_bit_tiff(tmp_path):
    Image.fromarray(np.array([[0, 13107, 65535]], np.int32)).save(tmp_path / "a.tif")
    assert torch.allclose(load_image(tmp_path / "a.tif")[0, 0, 0], torch.tensor([0, 0.2, 1]))
    Image.fromarray(np.array([[-100000, 0, 100000]], np.int32)).save(tmp_path / "b.tif")
    picture = read_image(tmp_path / "b.tif")
    assert torch.allclose(picture.pixels[0, 0, 0], torch.tensor([0, 0.5, 1]))
    assert "stretched" in picture.notes[0]


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk(tmp_path, suffix):
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:, :8] = [0, 255, 255, 0]  # magenta and yellow make red
    Image.fromarray(inks, "CMYK").save(tmp_path / f"a{suffix}")
    picture = read_image(tmp_path / f"a{suffix}")
    assert picture.notes == ("converted from CMYK, without a colour profile",)
    assert np.allclose(bytes_of(picture.pixels)[4, 2], [255, 0, 0], atol=6)
    assert np.allclose(bytes_of(picture.pixels)[4, 13], [255, 255, 255], atol=6)


def test_lab_tiff(tmp_path):
    lab = np.full((4, 4, 3), [128, 0, 0], np.uint8)  # L* = 50.2 and neutral
    Image.fromarray(lab, "LAB").save(tmp_path / "a.tif")
    picture = read_image(tmp_path / "a.tif")
    assert picture.notes == ("converted from CIELAB",)
    assert np.allclose(bytes_of(picture.pixels), 119, atol=2)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_of_several_frames_the_first(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    settings: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    path = tmp_path / f"a{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **settings)
    picture = read_image(path)
    assert picture.notes == (f"first of 3 {'pages' if suffix == '.tif' else 'frames'}",)
    assert np.array_equal(bytes_of(picture.pixels)[3, 3], [255, 0, 0])


def test_the_suffix_may_lie(tmp_path):
    Image.fromarray(GREYS).save(tmp_path / "a.bmp")
    (tmp_path / "a.bmp").rename(tmp_path / "a.jpg")
    assert np.array_equal(bytes_of(load_image(tmp_path / "a.jpg"))[..., 0], GREYS)


def test_a_string_is_a_path(tmp_path):
    path = save_image(ramp(4, 4), str(tmp_path / "a.png"))
    assert isinstance(path, Path)
    assert torch.equal(load_image(str(path)), read_image(path).pixels)


# --- orientation -------------------------------------------------------------------------------

# As stored, and as it must be shown, by the table in EXIF 2.3: "the 0th row is at the visual … of
# the image, the 0th column the visual …".
STORED = [[1, 2, 3], [4, 5, 6]]
SHOWN = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
    9: [[1, 2, 3], [4, 5, 6]],  # no such orientation
}


@pytest.mark.parametrize("orientation", sorted(SHOWN))
@pytest.mark.parametrize(
    ("suffix", "with_alpha"),
    [(".jpg", False), *itertools.product([".png", ".tif", ".webp"], [False, True])],
)
def test_orientation(tmp_path, suffix, orientation, with_alpha):
    levels = np.kron(np.array(STORED, np.uint8) * 40, np.ones((16, 16), np.uint8))
    image = Image.fromarray(levels).convert("RGB")
    if with_alpha:
        image.putalpha(Image.fromarray(levels))
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings: dict[str, Any] = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    image.save(tmp_path / f"a{suffix}", exif=exif, **settings)
    picture = read_image(tmp_path / f"a{suffix}")
    shown = np.array(SHOWN[orientation])
    assert np.array_equal(np.rint(bytes_of(picture.pixels)[8::16, 8::16, 0] / 40), shown)
    if with_alpha:
        assert picture.alpha is not None
        assert np.array_equal(bytes_of(picture.alpha)[8::16, 8::16, 0] / 40, shown)


def test_orientation_of_sixteen_bit(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(DEEP).save(tmp_path / "a.png", exif=exif)
    expected = torch.from_numpy(np.rot90(DEEP, -1).astype(np.float32) / 65535)
    assert torch.equal(load_image(tmp_path / "a.png")[0, 0], expected)


def test_a_damaged_exif_block_is_passed_over(tmp_path):
    Image.fromarray(GREYS).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(bytes_of(load_image(tmp_path / "a.png"))[..., 0], GREYS)


# --- colour profiles ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_profile_with_red_and_blue_swapped_swaps_them(tmp_path, mode):
    colours = np.array([[[255, 0, 0], [0, 0, 255], [0, 255, 0], [255, 255, 255]]], np.uint8)
    # Its name says sRGB: names are not to be trusted.
    data = rgb_profile("sRGB IEC61966-2.1", BLUE, GREEN, RED, 2.2)
    image = Image.fromarray(colours).convert(mode)
    image.save(tmp_path / "a.png", icc_profile=data)
    picture = read_image(tmp_path / "a.png")
    assert np.allclose(bytes_of(picture.pixels), colours[..., ::-1], atol=3)
    assert picture.notes == ("converted from ICC profile 'sRGB IEC61966-2.1'",)
    assert (picture.alpha is not None) == (mode == "RGBA")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_a_linear_profile_is_brightened_as_the_standard_says(tmp_path, suffix):
    grey = np.full((16, 16, 3), 55, np.uint8)
    settings: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    data = rgb_profile("linear", RED, GREEN, BLUE, 1)
    Image.fromarray(grey).save(tmp_path / f"a{suffix}", icc_profile=data, **settings)
    expected = 255 * srgb_of_linear(np.array(55 / 255))
    assert np.allclose(bytes_of(load_image(tmp_path / f"a{suffix}")), expected, atol=1.5)


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_a_grey_profile(tmp_path, mode):
    Image.fromarray(GREYS).convert(mode).save(tmp_path / "a.png", icc_profile=grey_profile(1))
    picture = read_image(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as file:
        stored = np.asarray(file.convert("L")) / 255
    assert np.allclose(bytes_of(picture.pixels)[..., 1], 255 * srgb_of_linear(stored), atol=1.5)


def test_a_grey_profile_of_sixteen_bits_keeps_the_depth(tmp_path):
    levels = np.arange(20000, 21000, dtype=np.uint16)[None]
    Image.fromarray(levels).save(tmp_path / "a.png", icc_profile=grey_profile(1))
    picture = read_image(tmp_path / "a.png")
    got = picture.pixels[0, 0, 0].numpy()
    assert np.allclose(got, srgb_of_linear(levels[0] / 65535), atol=2e-4)
    assert len(np.unique(got)) == 1000
    assert picture.notes == ("converted from ICC profile 'plain grey'",)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_an_srgb_profile_changes_not_one_bit(tmp_path, mode):
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(DEEP if mode == "I;16" else GREYS)
    image = image if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "a.png", icc_profile=data)
    image.save(tmp_path / "b.png")
    with_profile, without = read_image(tmp_path / "a.png"), read_image(tmp_path / "b.png")
    assert torch.equal(with_profile.pixels, without.pixels)
    assert with_profile.notes == ()


def test_a_broken_profile_is_noted_and_ignored(tmp_path):
    for data in (b"nonsense", rgb_profile("x", RED, GREEN, BLUE, 1)[:200]):
        Image.fromarray(GREYS).convert("RGB").save(tmp_path / "a.png", icc_profile=data)
        picture = read_image(tmp_path / "a.png")
        assert np.array_equal(bytes_of(picture.pixels)[..., 0], GREYS)
        assert len(picture.notes) == 1
        assert picture.notes[0].startswith("ICC profile ignored, it is damaged")
        assert "\n" not in picture.notes[0]


def test_a_profile_for_other_colours_is_noted_and_ignored(tmp_path):
    Image.fromarray(GREYS).convert("RGB").save(tmp_path / "a.png", icc_profile=grey_profile(1))
    picture = read_image(tmp_path / "a.png")
    assert np.array_equal(bytes_of(picture.pixels)[..., 0], GREYS)
    assert picture.notes == ("ICC profile 'plain grey' ignored: it is for GRAY pictures",)


# --- nothing but the picture -------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_place_and_camera_do_not_come_through(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)}
    source = tmp_path / "in.jpg"
    Image.fromarray(GREYS).save(source, exif=exif, comment=b"SecretPlace")
    assert b"SecretCamera" in source.read_bytes()
    with Image.open(source) as file:
        assert file.getexif().get_ifd(0x8825)
    path = save_image(load_image(source), tmp_path / f"out{suffix}", recipe=RECIPE)
    assert b"Secret" not in path.read_bytes()
    with Image.open(path) as file:
        file.load()
        found = dict(file.getexif())
        assert not file.getexif().get_ifd(0x8825)
        # A TIFF's own layout lies in the same kind of table; besides it XMP and the profile.
        layout = {254, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 338, 339, 700, 34675}
        assert set(found) <= (layout if "tif" in suffix else set())
        assert "comment" not in file.info


# --- the recipe --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
@pytest.mark.parametrize("recipe", [RECIPE, "", "{}", "a\r\nb\rc\n\td", "é" * 100_000])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_recipe_round_trip(tmp_path, suffix, recipe, with_alpha):
    alpha = torch.ones(1, 1, 8, 9) if with_alpha else None
    path = save_image(ramp(8, 9), tmp_path / f"a{suffix}", recipe=recipe, alpha=alpha)
    assert read_recipe(path) == recipe
    assert read_recipe(str(path)) == recipe


@pytest.mark.parametrize("length", [65_100, 65_200, 65_300, 130_000, 130_700])
def test_recipes_about_as_long_as_a_jpeg_segment(tmp_path, length):
    recipe = "".join(chr(97 + i % 26) for i in range(length))
    path = save_image(ramp(8, 8), tmp_path / "a.jpg", recipe=recipe)
    assert read_recipe(path) == recipe
    with Image.open(path) as file:  # any other reader still finds one well-formed packet
        assert file.info["xmp"].startswith(b"<?xpacket")
        assert file.size == (8, 8)


def test_a_jpeg_recipe_in_segments_out_of_order(tmp_path):
    path = save_image(ramp(8, 8), tmp_path / "a.jpg", recipe="é\n" * 90_000)
    data = path.read_bytes()
    at, segments = 20, []
    while data[at : at + 2] == b"\xff\xe1":
        length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append(data[at : at + length])
        at += length
    assert len(segments) == 6  # the pointer and 270 kB
    path.write_bytes(data[:20] + b"".join(segments[::-1]) + data[at:])
    assert read_recipe(path) == "é\n" * 90_000


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")))
@settings(max_examples=25, deadline=None)
def test_any_text_survives_xml(text):
    packet = metadata.xmp_packet(metadata.checked_recipe(text))
    assert metadata._recipe_in(packet) == text


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_no_recipe(tmp_path, suffix):
    assert read_recipe(save_image(ramp(4, 4), tmp_path / f"a{suffix}")) is None


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".png", ".jpg", ".webp", ".tif"])
def test_no_recipe_in_a_stranger(tmp_path, suffix):
    Image.fromarray(GREYS).save(tmp_path / f"a{suffix}")
    assert read_recipe(tmp_path / f"a{suffix}") is None


def test_recipe_as_other_tools_rewrite_it(tmp_path):
    # As an attribute; among their own properties; without the packet's wrapper.
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:dc="http://purl.org/dc/elements/1.1/"'
        ' xmlns:p="urn:phosphene:1.0/"'
        ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><!-- a comment --><rdf:RDF>'
        '<rdf:Description rdf:about="" dc:format="image/webp" p:recipe="{&quot;a&quot;: 1}"/>'
        "</rdf:RDF></x:xmpmeta>"
    )
    Image.fromarray(GREYS).save(tmp_path / "a.webp", xmp=packet.encode())
    assert read_recipe(tmp_path / "a.webp") == '{"a": 1}'


def test_recipe_behind_the_pixels(tmp_path):
    data = save_image(ramp(4, 4), tmp_path / "a.png", recipe=RECIPE).read_bytes()
    at = data.index(b"iTXt") - 4
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    tail = data.index(b"IEND") - 4
    (tmp_path / "b.png").write_bytes(data[:at] + data[end:tail] + data[at:end] + data[tail:])
    assert read_recipe(tmp_path / "b.png") == RECIPE


def test_xmp_that_is_no_xml_or_defines_entities_holds_no_recipe(tmp_path):
    bomb = '<!DOCTYPE x [<!ENTITY a "{}">]><p:recipe xmlns:p="urn:phosphene:1.0/">&a;</p:recipe>'
    for packet in (b"<x:xmpmeta", b"\xff\xfe\0", b"", bomb.encode()):
        Image.fromarray(GREYS).save(tmp_path / "a.webp", xmp=packet)
        assert read_recipe(tmp_path / "a.webp") is None


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_a_recipe_with_control_characters_is_refused(tmp_path, suffix):
    for recipe in ("a\0b", "\x1b[31m", "\ud800"):
        with pytest.raises(ImageError, match="control characters"):
            save_image(ramp(4, 4), tmp_path / f"a{suffix}", recipe=recipe)
    assert list(tmp_path.iterdir()) == []


# --- bad input ---------------------------------------------------------------------------------


def complaint(function, *args, **kwargs) -> str:
    with pytest.raises(ImageError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("reader", [read_image, load_image, read_recipe])
def test_what_is_no_picture(tmp_path, reader):
    assert "is a folder" in complaint(reader, tmp_path)
    (tmp_path / "empty.png").touch()
    assert "is empty" in complaint(reader, tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("hello,\nworld, this is text")
    message = complaint(reader, tmp_path / "text.png")
    assert "not a picture" in message
    assert "hello" in message
    assert "WebP" in message


def test_a_missing_file_suggests_its_neighbours(tmp_path):
    save_image(ramp(4, 4), tmp_path / "sunset.png")
    (tmp_path / "sunset.txt").touch()
    message = complaint(read_image, tmp_path / "sunse.png")
    assert message.startswith("there is no file")
    assert "the closest are sunset.png" in message
    assert "sunset.txt" not in message
    assert "no folder" in complaint(read_image, tmp_path / "nowhere" / "a.png")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_a_truncated_file(tmp_path, suffix, part):
    Image.fromarray(bytes_of(noise(64, 64))).save(tmp_path / f"a{suffix}")
    data = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(data[: int(len(data) * part)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, on some of them
        message = complaint(read_image, tmp_path / f"a{suffix}")
    assert message.startswith("cannot read")


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"]), st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_give_a_picture_or_an_image_error(tmp_path_factory, kind, data):
    out = io.BytesIO()
    Image.fromarray(bytes_of(ramp(12, 12))).save(out, format=kind)
    damaged = bytearray(out.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged)
    for reader in (read_image, read_recipe):
        with suppress(ImageError):
            reader(path)


def _png_header(width: int, height: int) -> bytes:
    data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + data + struct.pack(">I", zlib.crc32(b"IHDR" + data))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\1IDAT\0\0\0\0\0"


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self))
    (tmp_path / "a.png").write_bytes(_png_header(100_000, 100_000))
    (tmp_path / "a.bmp").write_bytes(
        b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    (tmp_path / "a.gif").write_bytes(
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\1\0\1\0\0\2"
    )
    for name, size in (
        ("a.png", "100000x100000"),
        ("a.bmp", "60000x60000"),
        ("a.gif", "65535x65535"),
    ):
        message = complaint(read_image, tmp_path / name)
        assert size in message
        assert "300 megapixels" in message
    assert not decoded


def test_two_hundred_megapixels_are_no_bomb(tmp_path):
    # Pillow's own limit, which is global to the process, lies lower: it must not come into it.
    (tmp_path / "a.png").write_bytes(_png_header(20_000, 10_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with files.open_image(tmp_path / "a.png") as file:
            files.check_pixels(tmp_path / "a.png", *file.size)


def test_reading_leaves_pillow_as_it_was(tmp_path):
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    path = save_image(ramp(8, 8), tmp_path / "a.jpg", recipe=RECIPE)
    read_image(path, size=4)
    read_recipe(path)
    complaint(read_image, tmp_path)
    assert before == (
        Image.MAX_IMAGE_PIXELS,
        ImageFile.LOAD_TRUNCATED_IMAGES,
        list(warnings.filters),
    )


def test_enlarging_beyond_the_limit_is_refused(tmp_path):
    path = save_image(ramp(8, 8), tmp_path / "a.png")
    assert "300 megapixels" in complaint(read_image, path, size=40_000)
    for size in (0, -3):
        with pytest.raises(SettingsError, match="size is"):
            read_image(path, size=size)


# --- bad output --------------------------------------------------------------------------------


def test_what_cannot_be_written(tmp_path):
    picture = ramp(4, 4)
    for name in ("a.bmp", "a", "a.gif", ".png"):
        message = complaint(save_image, picture, tmp_path / name)
        assert "suffix" in message
        assert ".webp" in message
        assert complaint(check_output, tmp_path / name, overwrite=True) == message
    (tmp_path / "folder.png").mkdir()
    assert "is a folder" in complaint(save_image, picture, tmp_path / "folder.png")
    assert "there is no folder" in complaint(save_image, picture, tmp_path / "no" / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_overwriting_only_if_allowed(tmp_path):
    path = save_image(torch.zeros(1, 3, 4, 4), tmp_path / "a.png", overwrite=False)
    before = path.read_bytes()
    for function in (
        check_output,
        lambda p, overwrite: write_atomically(p, b"x", overwrite=overwrite),
    ):
        assert "already there" in complaint(function, path, overwrite=False)
    assert "already there" in complaint(save_image, ramp(4, 4), path, overwrite=False)
    assert path.read_bytes() == before
    assert check_output(str(path), overwrite=True) == path
    save_image(ramp(4, 4), path)
    assert path.read_bytes() != before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_not_overwriting_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links on this file system")

    monkeypatch.setattr(os, "link", refuse)
    write_atomically(tmp_path / "a", b"first", overwrite=False)
    assert "already there" in complaint(write_atomically, tmp_path / "a", b"x", overwrite=False)
    assert (tmp_path / "a").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    picture = ramp(4, 4)
    picture[0, 1, 2, 3] = value
    assert "holds 1 value" in complaint(save_image, picture, tmp_path / "a.png")
    assert "holds 1 value" in complaint(to_uint8, picture)
    alpha = torch.full((1, 1, 4, 4), value)
    assert "alpha holds 16" in complaint(save_image, ramp(4, 4), tmp_path / "a.png", alpha=alpha)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "picture",
    [
        torch.zeros(2, 3, 4, 4),
        torch.zeros(1, 1, 4, 4),
        torch.zeros(4, 4),
        torch.zeros(4, 4, 3),
        torch.zeros(1, 3, 0, 4),
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, picture):
    message = complaint(save_image, picture, tmp_path / "a.png")
    assert str(tuple(picture.shape)) in message


def test_alpha_of_another_size_is_refused(tmp_path):
    message = complaint(save_image, ramp(4, 5), tmp_path / "a.png", alpha=torch.ones(1, 1, 5, 4))
    assert "4x5" in message
    assert "5x4" in message


@pytest.mark.parametrize(("suffix", "limit"), [(".webp", 16_383), (".jpg", 65_500)])
def test_pictures_too_long_for_the_format(tmp_path, suffix, limit):
    message = complaint(save_image, torch.zeros(1, 3, 1, limit + 1), tmp_path / f"a{suffix}")
    assert str(limit) in message
    assert "PNG" in message
    save_image(torch.zeros(1, 3, 1, limit), tmp_path / f"a{suffix}")
    assert load_image(tmp_path / f"a{suffix}").shape == (1, 3, 1, limit)


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = save_image(ramp(4, 4), tmp_path / "a.png")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = complaint(save_image, noise(4, 4), path)
    assert "the disk is full" in message
    assert str(path) in message
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.png", b"x")
    assert list(tmp_path.iterdir()) == []


needs_posix = pytest.mark.skipif(os.name != "posix", reason="POSIX limits and users")

WRITER = """
import sys
from pathlib import Path
from phosphene.image.files import appearing_whole
with appearing_whole(Path(sys.argv[1])) as scratch:
    scratch.write_bytes(b"half")
    print(scratch, flush=True)
    sys.stdin.read()
"""


@needs_posix
@pytest.mark.parametrize("later", [check_output, save_image])
def test_what_a_killed_process_left_is_removed_and_nothing_of_a_living_one(tmp_path, later):
    path = tmp_path / "a.png"
    write = {
        check_output: lambda: check_output(path, overwrite=True),
        save_image: lambda: save_image(ramp(4, 4), path),
    }[later]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], **pipes) as writer:
        assert writer.stdout
        scratch = Path(writer.stdout.readline().strip())
        os.utime(scratch, (0, 0))  # however old
        write()
        assert scratch.read_bytes() == b"half"
        writer.kill()
        writer.wait()
        assert scratch.exists()
        write()
        assert not scratch.exists()


def test_what_another_machine_left_is_removed_after_a_day(tmp_path):
    names = [f".phosphene-{part}{'0f' * 8}.tmp" for part in ("", "01234567-4194305-")]
    kept, now = tmp_path / ".phosphene-mine.tmp", time.time()
    for name in [*names, kept.name]:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now, now - files.STRAY_AGE + 60))
    check_output(tmp_path / "a.png", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == sorted([*names, kept.name])
    for name in [*names, kept.name]:
        os.utime(tmp_path / name, (now, now - files.STRAY_AGE - 60))
    check_output(tmp_path / "a.png", overwrite=True)
    assert os.listdir(tmp_path) == [kept.name]  # not a name that phosphene gives


@needs_posix
@pytest.mark.parametrize("overwrite", [True, False])
def test_the_folder_is_synced_after_the_rename(tmp_path, monkeypatch, overwrite):
    synced = []

    def fsync(handle):
        folder = os.path.samestat(os.fstat(handle), tmp_path.stat())
        synced.append("folder" if folder else "file")
        assert (tmp_path / "a").exists() == folder

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "a", b"x", overwrite=overwrite)
    assert synced == ["file", "folder"]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> dict[str, Any]:
    """What another process tells, that may not write long files, nor later into folders."""
    folder = tmp_path_factory.mktemp("elsewhere")
    folder.chmod(0o755)
    for name, mode in (
        ("open", 0o755),
        ("closed", 0o555),
        ("shut", 0o700 if os.getuid() == 0 else 0),
    ):
        (folder / name).mkdir()
        (folder / name).chmod(mode)
    program = """
import json, os, resource, sys
from phosphene.errors import ImageError
from phosphene.image import check_output, draw_sky, save_image
told = {"loaded": [name for name in ("torchvision", "timm", "scipy") if name in sys.modules]}

def complaint(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except ImageError as error:
        return str(error)

limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
told["long"] = complaint(save_image, draw_sky(100, 100), "open/a.png")
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
if os.getuid() == 0:
    os.setuid(65534)
told["closed"] = complaint(check_output, "closed/a.png", overwrite=True)
told["shut"] = complaint(check_output, "shut/a.png", overwrite=True)
print(json.dumps(told))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("closed", "shut"):
        (folder / name).chmod(0o755)
    return {**json.loads(done.stdout), "left": sorted(p.name for p in folder.rglob("*"))}


@needs_posix
def test_a_file_that_the_system_cuts_short(elsewhere):
    assert elsewhere["long"] == "cannot write 'open/a.png': File too large"
    assert elsewhere["left"] == ["closed", "open", "shut"]


@needs_posix
def test_a_folder_that_is_not_ours(elsewhere):
    assert elsewhere["closed"] == "cannot write 'closed/a.png': Permission denied"
    assert elsewhere["shut"] == "cannot write 'shut/a.png': Permission denied"


@needs_posix
def test_importing_it_loads_no_torchvision(elsewhere):
    assert elsewhere["loaded"] == []


@needs_posix
def test_files_have_the_usual_permissions_and_links_stay(tmp_path):
    usual = tmp_path / "usual"
    usual.touch()
    path = save_image(ramp(4, 4), tmp_path / "a.png")
    assert path.stat().st_mode == usual.stat().st_mode
    (tmp_path / "link.png").symlink_to(path)
    before = path.read_bytes()
    save_image(noise(4, 4), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert path.read_bytes() != before


# --- eight bits --------------------------------------------------------------------------------


def test_to_uint8_rounds_and_clamps():
    row = torch.tensor([-5, 0, 0.49 / 255, 0.51 / 255, 1.49 / 255, 254.51 / 255, 1, 7.0])
    picture = row.view(1, 1, 1, -1).expand(1, 3, 1, -1)
    levels = to_uint8(picture)
    assert levels.shape == (1, 8, 3)
    assert levels.dtype == np.uint8
    assert levels[0, :, 0].tolist() == [0, 0, 0, 1, 1, 255, 255, 255]
    assert np.array_equal(to_uint8(picture[0]), levels)


def test_to_uint8_does_not_mix_axes():
    picture = noise(2, 5)
    assert np.array_equal(to_uint8(picture), bytes_of(picture))
    assert np.array_equal(to_uint8(picture.requires_grad_()), to_uint8(picture.double()))


def test_every_level_survives_half_precision_storage():
    levels = torch.arange(256).view(1, 1, 1, 256).expand(1, 3, 1, 256)
    assert np.array_equal(to_uint8((levels / 255).half())[0, :, 0], np.arange(256))


# --- resizing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(7, 31), (40, 50), (3, 3), (1, 1), (20, 31), (1, 200)])
def test_resize_agrees_with_pillow(size):
    picture = noise(20, 31)
    got = resize(picture, size)
    for channel in range(3):
        source = Image.fromarray(picture[0, channel].numpy())
        expected = source.resize(size[::-1], Image.Resampling.BICUBIC)
        assert np.allclose(got[0, channel].numpy(), np.asarray(expected), atol=2e-5)


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_resize_keeps_flat_colour_and_is_linear(h, w, H, W, channels):
    flat = torch.full((1, channels, h, w), 0.3)
    assert torch.allclose(resize(flat, (H, W)), torch.full((1, channels, H, W), 0.3), atol=1e-5)
    a, b = noise(h, w, channels), noise(h, w, channels, seed=1)
    assert torch.allclose(
        resize(a - 2 * b, (H, W)), resize(a, (H, W)) - 2 * resize(b, (H, W)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [((1, 1), (50, 70)), ((1, 4000), (3, 5)), ((4000, 1), (1, 1)), ((2, 2), (1, 4000))],
)
def test_resize_of_extreme_shapes(old, new):
    out = resize(torch.full((2, 3, *old), 0.25), new)
    assert out.shape == (2, 3, *new)
    assert torch.allclose(out, torch.tensor(0.25), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_resize_keeps_the_dtype(dtype):
    picture = noise(8, 9).to(dtype)
    out = resize(picture, (5, 20))
    assert out.dtype == dtype
    assert torch.allclose(out.float(), resize(noise(8, 9), (5, 20)), atol=1e-2)


def test_resize_to_the_same_size_is_the_same_tensor():
    picture = noise(4, 5)
    assert resize(picture, (4, 5)) is picture
    assert size_of(picture) == (4, 5)


def test_resize_is_differentiable():
    picture = noise(6, 7).requires_grad_()
    resize(picture, (3, 3)).sum().backward()
    assert picture.grad is not None
    assert torch.allclose(picture.grad.sum(), torch.tensor(27.0), atol=1e-4)


def test_resize_refuses_what_is_no_image():
    for bad in (torch.zeros(3, 4, 4), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)):
        assert "resize takes" in complaint(resize, bad, (2, 2))
    for size in ((0, 2), (2, -1)):
        assert "cannot resize" in complaint(resize, noise(4, 4), size)


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)), st.integers(1, 60), st.integers(1, 60)
)
@settings(max_examples=60, deadline=None)
def test_stages_shrink_by_no_more_than_asked(have, h, w):
    stages = [have, *tensor._stages(have, (h, w), 16), (h, w)]
    for before, after in itertools.pairwise(stages):
        for axis in (0, 1):
            assert before[axis] <= 16 * after[axis]
            assert after[axis] <= before[axis] or before[axis] < (h, w)[axis]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_size_is_the_longest_side(tmp_path_factory, h, w, size):
    path = tmp_path_factory.getbasetemp() / "sized.png"
    save_image(noise(h, w), path)
    picture = read_image(path, size=size)
    H, W = size_of(picture.pixels)
    assert max(H, W) == size
    assert min(H, W) >= 1
    # The shape is kept to within the rounding of the shorter side.
    assert abs(H * max(h, w) - h * size) <= max(max(h, w) / 2, max(h, w) - h * size)
    assert picture.pixels.min() >= 0
    assert picture.pixels.max() <= 1
    if size == max(h, w):
        assert picture.notes == ()
    else:
        assert picture.notes == (f"resized {w}x{h} -> {W}x{H}",)


def test_hidden_colours_do_not_bleed_into_edges(tmp_path):
    picture = torch.zeros(1, 3, 32, 32)
    picture[:, 0] = 1
    alpha = torch.ones(1, 1, 32, 32)
    picture[..., 16:] = torch.tensor([0.0, 1, 0]).view(3, 1, 1)  # green, and not seen
    alpha[..., 16:] = 0
    path = save_image(picture, tmp_path / "a.png", alpha=alpha)
    small = read_image(path, size=7)
    assert small.alpha is not None
    assert small.alpha.shape == (1, 1, 7, 7)
    seen = (small.alpha > 0.02).expand(1, 3, 7, 7)[:, 0]
    assert small.pixels[:, 0][seen].min() > 0.98
    assert small.pixels[:, 1][seen].max() < 0.02
    assert torch.allclose(small.pixels[0, 1, :, -1], torch.ones(7))  # but kept where it was hidden


# --- masks -------------------------------------------------------------------------------------


def test_a_mask_is_the_luminance(tmp_path):
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]]).T.view(
        1, 3, 1, 5
    )
    path = save_image(colours, tmp_path / "a.png")
    mask, notes = load_mask(path, (1, 5))
    assert mask.shape == (1, 1, 1, 5)
    assert torch.allclose(mask.flatten(), torch.tensor([0.2126, 0.7152, 0.0722, 1, 0]), atol=1e-6)
    assert notes == ()


def test_greys_mask_by_their_value_and_transparency_is_black(tmp_path):
    grey = noise(4, 6, 1).expand(1, 3, 4, 6)
    assert torch.allclose(load_mask(save_image(grey, tmp_path / "a.png"), (4, 6))[0], grey[:, :1])
    path = save_image(grey, tmp_path / "b.png", alpha=torch.zeros(1, 1, 4, 6))
    mask, notes = load_mask(path, (4, 6))
    assert not mask.any()
    assert notes == ("the mask is black everywhere",)


def test_a_mask_of_another_size_is_resized_and_says_so(tmp_path):
    path = save_image(torch.ones(1, 3, 10, 20), tmp_path / "a.png")
    mask, notes = load_mask(path, (15, 30))
    assert torch.allclose(mask, torch.ones(1, 1, 15, 30))
    assert notes == ("mask resized 20x10 -> 30x15",)
    assert load_mask(path, (30, 15))[1] == ("mask resized 20x10 -> 15x30, its proportions changed",)
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    mask, _ = load_mask(save_image(edge, tmp_path / "b.png"), (64, 64))
    assert mask.min() == 0
    assert mask.max() == 1


# --- the sky -----------------------------------------------------------------------------------


def test_a_sky_is_a_picture_and_the_same_each_time():
    state = torch.random.get_rng_state()
    sky = draw_sky(90, 120, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sky.shape == (1, 3, 90, 120)
    assert sky.dtype == torch.float32
    assert sky.min() >= 0
    assert sky.max() <= 1
    assert torch.equal(draw_sky(90, 120, seed=4), sky)
    assert (draw_sky(90, 120, seed=5) - sky).abs().mean() > 0.05


@pytest.mark.parametrize("seed", [0, 3])
def test_the_same_seed_is_the_same_sky_at_every_size(seed):
    large = draw_sky(360, 480, seed)
    for size in ((180, 240), (90, 120), (60, 80)):
        difference = (draw_sky(*size, seed) - resize(large, size)).abs()
        assert difference.mean() < 0.004
    # A wider frame shows more to both sides of the same.
    wide = draw_sky(360, 600, seed)
    assert (wide[..., 60:540] - large).abs().max() < 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_a_sky_is_blue_and_pales_to_the_horizon_and_has_clouds(seed):
    sky = draw_sky(120, 180, seed)[0]
    red, blue = sky[0], sky[2]
    assert (blue - red).mean() > 0.05
    clear = (blue - red) > 0.25
    assert clear.float().mean() > 0.1
    white = (sky.amin(0) > 0.75) & ((blue - red).abs() < 0.1)
    assert white[:100].float().mean() > 0.04
    bottom = sky[:, -3:].mean((1, 2))
    assert bottom.min() > 0.65
    assert bottom.max() - bottom.min() < 0.2


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (4000, 1), (2, 3)])
def test_skies_of_any_shape(size):
    sky = draw_sky(*size)
    assert sky.isfinite().all()
    assert size_of(sky) == size


def test_a_sky_of_no_size_is_refused():
    for height, width, seed in ((0, 4, 0), (4, -1, 0), (4, 4, -1)):
        with pytest.raises(SettingsError, match="a sky of"):
            draw_sky(height, width, seed)


# What a picture starts from


def test_noise_is_seeded_and_about_grey() -> None:
    noise = start_picture("noise", (60, 80), seed=4)
    assert noise.shape == (1, 3, 60, 80)
    assert torch.equal(noise, start_picture("noise", (60, 80), seed=4))
    assert not torch.equal(noise, start_picture("noise", (60, 80), seed=5))
    assert 0 <= noise.min() < noise.max() <= 1
    assert np.isclose(noise.mean(), 0.5, atol=0.01)
    assert np.isclose(noise.std(), DEVIATION, atol=0.01)
    for size, seed in [((0, 5), 0), ((5, 5), -1), ((100_000, 100_000), 0)]:
        with pytest.raises(SettingsError, match="sides are 1 or more"):
            start_picture("noise", size, seed)


# What is needed where there is no torch


def test_files_and_recipes_need_no_torch(tmp_path):
    path = save_image(ramp(9, 9), tmp_path / "a.jpg", recipe=RECIPE)
    (tmp_path / "a.svg").write_text(f"<svg>{metadata.recipe_element(RECIPE)}</svg>")
    code = """
import sys
import phosphene.image.metadata
from phosphene.image import SUFFIXES, PIXEL_LIMIT, check_output, read_recipe, write_atomically
path, drawing, out = sys.argv[1:]
assert read_recipe(path) == read_recipe(drawing) != None
write_atomically(check_output(out, overwrite=False), read_recipe(path).encode())
print([name for name in ("torch", "numpy") if name in sys.modules])
"""
    files = [str(path), str(tmp_path / "a.svg"), str(tmp_path / "b.png")]
    done = subprocess.run(
        [sys.executable, "-c", code, *files], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert (tmp_path / "b.png").read_text("utf-8") == RECIPE


def test_luma_is_the_weighted_sum_whatever_its_layout():
    for weights in (tensor.REC_601, tensor.REC_709):
        for layout in (torch.contiguous_format, torch.channels_last):
            picture = noise(17, 23).contiguous(memory_format=layout)
            by_sum = (picture * torch.tensor(weights).view(1, 3, 1, 1)).sum(1, keepdim=True)
            assert torch.equal(tensor.luma(picture, weights), by_sum)
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(tensor.luma(red).sum(), red)
    assert gradient.flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])
    assert tensor.luma(red).item() == pytest.approx(0.299)


def test_every_name_of_the_package_is_there():
    from phosphene import image, objectives

    for package in (image, objectives):
        assert [name for name in package.__all__ if not hasattr(package, name)] == []
        assert set(package.__all__) <= set(dir(package))
        with pytest.raises(AttributeError, match="has no attribute 'fir'"):
            package.fir  # noqa: B018


# --- what takes long, or much memory -----------------------------------------------------------


def jpeg(**how) -> bytes:
    out = io.BytesIO()
    Image.fromarray(to_uint8(ramp(40, 60))).save(out, "JPEG", **how)
    return out.getvalue()


def exif_blocks(count: int) -> bytes:
    block = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    plain = jpeg()
    return plain[:2] + segment * count + plain[2:]


@pytest.mark.parametrize("reader", [read_image, read_recipe])
def test_jpegs_that_take_long_are_refused(tmp_path, reader):
    progressive = jpeg(progressive=True)
    last = progressive.rindex(b"\xff\xda")
    scan, own = progressive[last:-2], progressive.count(b"\xff\xda")
    assert own < 20
    path = tmp_path / "a.jpg"
    for data, told in {
        progressive[:-2] + scan * (files.SCANS + 1 - own) + b"\xff\xd9": "more than 100 scans",
        exif_blocks(files.EXIF_BLOCKS + 1): "65 blocks of EXIF; 64 are the most",
    }.items():
        path.write_bytes(data)
        message = complaint(reader, path)
        assert told in message
        assert str(path) in message
    for data in (progressive[:-2] + scan * (files.SCANS - own) + b"\xff\xd9", exif_blocks(3)):
        path.write_bytes(data)
        reader(path)


def test_a_thumbnail_is_no_scan(tmp_path):
    inner = b"Exif\0\0" + b"\xff\xda" * 500
    data = jpeg()
    segment = b"\xff\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner
    (tmp_path / "a.jpg").write_bytes(data[:2] + segment + data[2:])
    assert size_of(read_image(tmp_path / "a.jpg").pixels) == (40, 60)


def test_pages_are_counted_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(codec, "PAGES", 4)
    pages = [Image.new("L", (3, 2), shade) for shade in range(10, 130, 20)]
    for count in range(1, 7):
        pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:count])
        read = read_image(tmp_path / "a.tif")
        told = {1: (), 5: ("first of more than 4 pages",), 6: ("first of more than 4 pages",)}
        assert read.notes == told.get(count, (f"first of {count} pages",))
        assert (read.pixels * 255).round().unique().tolist() == [10]


def test_what_memory_does_not_hold_is_refused_by_its_header(tmp_path, monkeypatch):
    save_image(ramp(40, 50), tmp_path / "a.png")
    monkeypatch.setattr(files, "available_memory", lambda: 40 * 50 * files.BYTES_PER_PIXEL)
    read_image(tmp_path / "a.png")
    monkeypatch.setattr(files, "available_memory", lambda: 40 * 50 * files.BYTES_PER_PIXEL - 1)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    assert "50x40 px, which take 1 MiB of memory" in complaint(read_image, tmp_path / "a.png")


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_what_is_written_is_read_whatever_pillows_own_limit(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    path = save_image(ramp(20, 30), tmp_path / f"a{suffix}", recipe="{}")
    assert size_of(read_image(path).pixels) == (20, 30)
    assert read_recipe(path) == "{}"
    assert Image.MAX_IMAGE_PIXELS == 50
    path.write_bytes(path.read_bytes()[:40])
    complaint(read_image, path)
    assert Image.MAX_IMAGE_PIXELS == 50
