"""`show`: what a notebook is given. IPython's display is a recorder here."""

# pyright: reportCallIssue=false
# since `show` is given what it cannot show, on purpose
from __future__ import annotations

import io
import sys
import types
from base64 import b64decode
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
from phosphene import notebook
from phosphene.errors import SettingsError
from phosphene.explain import layout, pages
from phosphene.films.frames import Frame
from phosphene.image import shown, to_uint8
from phosphene.network import Network
from phosphene.recipes.base import imported, recipe_named, recipe_names


class Recorder:
    """`IPython.display.display` as far as it is used: what was shown, in order, by its place."""

    def __init__(self) -> None:
        self.places: list[list[dict[str, str]]] = []
        self.metadata: dict[str, Any] = {}

    def display(
        self, data: Any, *, raw: bool, metadata: Any = None, display_id: bool = False
    ) -> Any:
        assert raw
        place = [data]
        self.places.append(place)
        self.metadata = metadata or {}

        def update(data: Any, *, raw: bool, metadata: Any = None) -> None:
            assert raw
            place.append(data)

        return types.SimpleNamespace(update=update) if display_id else None


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A notebook's cell."""
    recorder = Recorder()
    shell = types.SimpleNamespace(kernel=object())
    ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython = lambda: shell  # pyright: ignore[reportAttributeAccessIssue]
    display.display = recorder.display  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return recorder


def decoded(data: dict[str, str]) -> Image.Image:
    (kind,) = data
    return Image.open(io.BytesIO(b64decode(data[kind]))).convert("RGB")


def flat(red: float, green: float, blue: float, height: int = 160, width: int = 100) -> Tensor:
    return torch.tensor([float(red), green, blue]).view(1, 3, 1, 1).expand(1, 3, height, width)


def test_a_picture_is_a_jpeg_of_its_pixels(cell: Recorder) -> None:
    sky = ph.draw_sky(48, 64)
    assert ph.show(sky) is None
    ((data,),) = cell.places
    assert list(data) == ["image/jpeg"]
    assert abs(np.asarray(decoded(data)).astype(int) - to_uint8(sky)).mean() < 6


def test_a_path_and_a_batch(cell: Recorder, tmp_path: Path) -> None:
    path = ph.save_image(flat(1, 0, 0, 20, 30), tmp_path / "red.png")
    ph.show(str(path))
    ph.show(torch.cat([flat(0, 0, 0, 20, 30)] * 2), height=80)
    assert [decoded(place[0]).size for place in cell.places] == [(30, 20), (64, 20)]
    assert cell.metadata == {"image/jpeg": {"height": 80}}


def test_pictures_side_by_side_with_captions(cell: Recorder) -> None:
    ph.show(flat(1, 0, 0), flat(0, 0, 1), captions=["red", "blue"])
    picture = decoded(cell.places[0][0])
    scale = pages.NOTEBOOK_SCALE
    assert picture.size == (round(210 * scale), round((160 + notebook.LINE) * scale))
    assert picture.getpixel((75, 120)) == (255, 0, 0)
    assert picture.getpixel((240, 120)) == (0, 0, 255)
    line = np.asarray(picture)[round(162 * scale) :]  # below the pictures: letters
    assert line.min() < 100
    assert cell.metadata == {"image/png": {"width": 210}}


def test_many_pictures_are_made_to_fit(cell: Recorder) -> None:
    ph.show(*[flat(0.5, 0.5, 0.5, 100, 300)] * 4)
    assert cell.metadata == {"image/png": {"width": notebook.WIDTH}}


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ((), {}, "nothing is given"),
        ((3,), {}, "cannot show a int"),
        ((torch.zeros(1, 4, 8, 8),), {}, r"cannot show a Tensor \(1, 4, 8, 8\)"),
        (([],), {}, "the list is empty"),
        ((flat(0, 0, 0),) * 2, {"captions": ["one"]}, "1 captions for 2 pictures"),
        ((iter(()),), {}, "no steps left"),
    ],
)
def test_what_cannot_be_shown(
    cell: Recorder, given: tuple[Any, ...], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        ph.show(*given, **options)


def test_a_dream_shows_itself_and_is_what_it_would_be(
    cell: Recorder, toy: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "PREVIEW_EVERY", 0.0)
    sky = ph.draw_sky(48, 64)
    layer = next(iter(toy.layers))
    dream = ph.show(ph.dream.steps(sky, toy, layer, octaves=2, steps=3))
    assert torch.equal(dream, ph.dream(sky, toy, layer, octaves=2, steps=3))
    bar, picture = cell.places
    assert [float(each["text/html"].split('"')[1]) for each in bar[1:-1]] == sorted(
        float(each["text/html"].split('"')[1]) for each in bar[1:-1]
    )
    assert '<progress value="1.000"' in bar[-2]["text/html"]
    assert list(bar[-1]) == ["text/plain"]
    assert "octave 2/2" in bar[-1]["text/plain"]
    assert len(picture) == 1 + 6 + 1
    assert abs(np.asarray(decoded(picture[-1])).astype(int) - to_uint8(dream)).mean() < 6


def test_a_page_comes_of_its_steps(cell: Recorder, toy: Network) -> None:
    layer = next(iter(toy.layers))
    pyramid = ph.show(ph.octaves.steps(ph.draw_sky(48, 64), toy, layer, octaves=2, steps=1))
    assert [octave.number for octave in pyramid.octaves] == [1, 2]
    assert cell.places[1][-1] == pyramid._repr_mimebundle_()[0]


def test_interrupted_it_keeps_what_there_is(cell: Recorder) -> None:
    def steps(least: int) -> Iterator[Frame]:
        for index in range(least):
            yield Frame(index, Fraction(index, 4), flat(index / 4, 0, 0, 16, 16), Fraction(1, 4))
        raise KeyboardInterrupt

    frames = ph.show(steps(3))
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert cell.places[0][-1] == {"text/plain": "3 frames  stopped"}
    with pytest.raises(KeyboardInterrupt):
        ph.show(steps(0))


def test_frames_are_a_film_that_moves(cell: Recorder) -> None:
    tones = [0.0, 0.5, 1.0]
    ph.show([Frame(i, Fraction(i, 5), flat(t, t, t, 16, 24)) for i, t in enumerate(tones)], rate=5)
    ((data,),) = cell.places
    source = data["text/html"].split("base64,")[1].split('"')[0]
    film = Image.open(io.BytesIO(b64decode(source)))
    assert (film.format, film.size, film.n_frames) == ("WEBP", (24, 16), 3)  # pyright: ignore[reportAttributeAccessIssue]
    found = []
    for index in range(3):
        film.seek(index)
        film.load()
        assert film.info["duration"] == 200
        found.append(np.asarray(film.convert("RGB")).mean() / 255)
    assert np.allclose(found, tones, atol=0.03)
    still = decoded({"image/jpeg": data["image/jpeg"]})
    assert still.size == (5 * 24 + 4 * 4, 16)


def test_pages_show_themselves(toy: Network) -> None:
    layer = next(iter(toy.layers))
    sheet = ph.sheet(toy, layer, "0-1", steps=1, size=32, keep=False)
    data, metadata = sheet._repr_mimebundle_()
    page = sheet.layout()
    assert metadata == {"image/png": {"width": round(page.width)}}
    assert decoded(data).size == layout.pages.as_image(page, pages.NOTEBOOK_SCALE).size


@pytest.mark.parametrize("name", [n for n in recipe_names() if recipe_named(n).output == "page"])
def test_what_every_recipe_for_pages_gives_shows_itself(name: str) -> None:
    assert issubclass(imported(recipe_named(name).result_type), pages.ShownPage)  # pyright: ignore[reportArgumentType]


def test_a_page_full_of_pictures_is_a_jpeg() -> None:
    noise = torch.rand(1, 3, 400, 400, generator=torch.Generator().manual_seed(0))
    data, metadata = shown.page_bundle(Image.fromarray(to_uint8(noise)), 200)
    assert list(data) == ["image/jpeg"]
    assert metadata == {"image/jpeg": {"width": 200}}


def test_steps_show_themselves(toy: Network) -> None:
    layer = next(iter(toy.layers))
    step = next(ph.dream.steps(ph.draw_sky(48, 64), toy, layer, octaves=1, steps=1))
    assert Image.open(io.BytesIO(step._repr_jpeg_())).size == (64, 48)


def test_without_a_notebook_a_line_says_so_once(
    toy: Network, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(notebook, "_told", False)
    layer = next(iter(toy.layers))
    ph.show(flat(0, 0, 0))
    dream = ph.show(ph.dream.steps(ph.draw_sky(48, 64), toy, layer, octaves=1, steps=2))
    assert dream.shape == (1, 3, 48, 64)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "save_image(picture, FILE)" in err
