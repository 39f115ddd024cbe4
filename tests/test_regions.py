"""Painted regions: each with an objective of its own, in Python, in requests and as commands."""

from __future__ import annotations

import gc
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from phosphene import objectives as obj
from phosphene.cli.verbs import split_region
from phosphene.errors import ImageError, SettingsError
from phosphene.jobs import InputFile, Request
from phosphene.manifest import Manifest
from phosphene.manifest.schema import Region
from phosphene.network import Network
from phosphene.recipes.base import recipe_named
from phosphene.recipes.dream import DreamSettings, dream
from phosphene.recipes.steps.dream import DreamStep
from tests.command import Done, Say, run
from tests.on import DEVICE
from tests.tiling_networks import padded, picture, seeded

# The loop, and not the look: the gradient as it is, but for a little blur.
PLAIN: dict[str, Any] = {"natural": 0, "laplacian": 0, "smooth": 0.5, "smallest_octave": 2}
FIXED: dict[str, Any] = {"device": DEVICE, "precision": "fp32", "octaves": 2, "steps": 3, **PLAIN}
NET = "tests.toy_network:net"


def steps(photo: Tensor, net: Network, what: Any = None, **given: Any) -> list[DreamStep]:
    return list(dream.steps(photo, net, what, **(FIXED | given)))


def dreamt(photo: Tensor, net: Network, what: Any = None, **given: Any) -> Tensor:
    return dream(photo, net, what, **(FIXED | given))


def left(width: int, size: tuple[int, int] = (48, 40)) -> Tensor:
    mask = torch.zeros(1, 1, *size)
    mask[..., :width] = 1
    return mask


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The layers that a gradient is wanted of, pass by pass."""
    told: list[tuple[str, ...]] = []
    real = Network.activations

    def counted(self: Network, image: Tensor, layers: Any, **more: Any) -> Any:
        if image.requires_grad and image.shape[-1] in (29, 40):  # of an octave
            told.append(tuple(layers))
        return real(self, image, layers, **more)

    monkeypatch.setattr(Network, "activations", counted)
    return told


# What they are


def test_hard_masks_of_one_objective_are_one_dream_to_the_bit(toy: Network, photo: Tensor) -> None:
    # Nothing is normalised or smoothed, so that nothing tells one part from the other.
    plain: dict[str, Any] = {"gradient": "none", "smooth": 0, "step_size": 2.0, "octaves": 1}
    loud = "1000*third"
    one = dreamt(photo, toy, loud, **plain)
    assert (one - photo).abs().max() > 0.05
    a = left(13)
    parts = [(a, loud), (1 - a, loud)]
    assert torch.equal(dreamt(photo, toy, regions=parts, rest="stay", **plain), one)
    assert torch.equal(dreamt(photo, toy, loud, regions=parts[:1], **plain), one)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"laplacian": 3, "clip": 1.0},
        {"gradient": "std", "smooth": 2},
        {"gradient": "norm", "step_size": 1.0},
        {"gradient": "mean", "values": "network"},
        {"detail": "after", "jitter": "half"},
    ],
)
def test_masks_of_one_half_and_one_objective_are_one_dream(
    more: dict[str, Any], toy: Network, photo: Tensor
) -> None:
    exact: dict[str, Any] = {"precision": "fp64", **more}
    half = torch.full((1, 1, 48, 40), 0.5)
    one = steps(photo, toy, "third", **exact)
    regions = [(half, "third"), (half, "third")]
    for got in (
        steps(photo, toy, regions=regions, rest="stay", **exact),
        steps(photo, toy, "third", regions=regions[:1], **exact),
        steps(photo, toy, regions=[(2 * half, "third")], rest="stay", **exact),
    ):
        assert len(got) == len(one)
        for a, b in zip(got, one, strict=True):
            torch.testing.assert_close(a.image, b.image, rtol=0, atol=1e-12)
    assert (one[-1].image - photo.to(DEVICE)).abs().max() > 0.02


@pytest.mark.parametrize("octaves", [1, 3])
def test_what_stays_is_the_photograph_itself(octaves: int, toy: Network, photo: Tensor) -> None:
    mask = left(14)
    mask[..., 12] = 0.5
    mask[..., 13] = 0.1
    image = dreamt(photo, toy, regions=[(mask, "third")], rest="stay", octaves=octaves)
    # A smaller octave has the edge between two of its pixels: each is 2 px wide here, and a bicubic
    # one reaches two of them.
    beyond = 14 if octaves == 1 else 14 + 6
    assert torch.equal(image[..., beyond:], photo[..., beyond:])
    assert (image - photo).abs()[..., :10].mean() > 0.02


def test_a_soft_edge_stays_soft(toy: Network, photo: Tensor) -> None:
    ramp = torch.linspace(1, 0, 40).view(1, 1, 1, 40).expand(1, 1, 48, 40)
    one = {"octaves": 1, "steps": 1, "jitter": 0, "gradient": "none", "smooth": 0, "step_size": 3.0}
    whole = dreamt(photo, toy, "third", **one) - photo
    part = dreamt(photo, toy, regions=[(ramp, "third")], rest="stay", **one) - photo
    torch.testing.assert_close(part, whole * ramp, rtol=1e-4, atol=1e-6)


def test_each_is_normalised_within_its_own_mask(toy: Network, photo: Tensor) -> None:
    # A loud objective beside a faint one: each moves its part by one step, rms.
    a = left(16)
    one: dict[str, Any] = {"octaves": 1, "steps": 1, "jitter": 0, "smooth": 0, "step_size": 0.01}
    loud, faint = "1000*third", "0.001*second"
    moved = dreamt(photo, toy, regions=[(a, loud), (1 - a, faint)], rest="stay", **one) - photo
    for part in (moved[..., :16], moved[..., 16:]):
        torch.testing.assert_close(part.square().mean().sqrt(), torch.tensor(0.01))
    assert torch.equal(
        moved[..., 16:],
        (dreamt(photo, toy, faint, regions=[(a, "first")], **one) - photo)[..., 16:],
    )


def test_regions_that_overlap_share(toy: Network, photo: Tensor) -> None:
    one: dict[str, Any] = {"octaves": 1, "steps": 1, "jitter": 0, "gradient": "none", "smooth": 0}
    a, b = left(30), left(40) - left(10)
    third, second = (
        dreamt(photo, toy, what, step_size=2.0, **one) - photo for what in ("third", "second")
    )
    got = dreamt(photo, toy, regions=[(a, "third"), (b, "second")], step_size=2.0, rest="stay",
                 **one) - photo  # fmt: skip
    expected = torch.cat([third[..., :10], (third + second)[..., 10:30] / 2, second[..., 30:]], 3)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_the_score_of_a_region_rises_inside(toy: Network, photo: Tensor) -> None:
    a, b = left(20), 1 - left(20)
    goals = ["third:1", "third:5"]
    before, after = photo, dreamt(photo, toy, regions=list(zip([a, b], goals, strict=True)),
                                  rest="stay", steps=10)  # fmt: skip
    net = toy.prepared("cpu", "fp32")
    answers = [net.activations(image, ["third"])["third"] for image in (before, after)]
    (one, other), (one_after, other_after) = (
        (a[:, 1, :, :8].mean(), a[:, 5, :, 12:].mean()) for a in answers
    )
    assert one_after > one + 0.1 * abs(one)
    assert other_after > other + 0.1 * abs(other)
    # Each more than the other part's objective has grown there.
    crossed = answers[1][:, 5, :, :8].mean() - answers[0][:, 5, :, :8].mean()
    assert other_after - other > crossed


def test_mask_multiplies_all_of_it(toy: Network, photo: Tensor) -> None:
    regions, mask = [(left(20), "second")], 1 - left(30)
    image = dreamt(photo, toy, "third", regions=regions, mask=mask, octaves=1)
    assert torch.equal(image[..., :30], photo[..., :30])
    assert (image - photo).abs()[..., 30:].mean() > 0.01
    grey = torch.full((1, 1, 48, 40), 0.25)
    one: dict[str, Any] = {"regions": regions, "octaves": 1, "steps": 1, "jitter": 0}
    plain, quarter = (dreamt(photo, toy, "third", mask=m, **one) for m in (None, grey))
    torch.testing.assert_close(quarter - photo, 0.25 * (plain - photo), rtol=0, atol=1e-6)


def test_jitter_moves_the_gradient_and_not_the_mask(toy: Network, photo: Tensor) -> None:
    mask, photo = torch.zeros(1, 1, 48, 40, device=DEVICE), photo.to(DEVICE)
    mask[..., 10:30, 5:22] = 1
    for step in steps(photo, toy, regions=[(mask, "third")], rest="stay", octaves=1, jitter=17):
        moved = (step.image != photo).any(1, keepdim=True)
        assert torch.equal(moved | (mask == 0), torch.ones_like(moved))
        assert not (moved & (mask == 0)).any()


@pytest.mark.parametrize("where", ["a region", "the rest"])
def test_one_that_goes_by_places_turns_the_jitter_off_for_all(
    where: str, toy: Network, photo: Tensor
) -> None:
    places: Any = obj.content("third", photo.flip(-1))
    what, region = ("second", places) if where == "a region" else (places, "second")
    given: dict[str, Any] = {"regions": [(left(20), region)]}
    still = dreamt(photo, toy, what, jitter=0, **given)
    assert torch.equal(dreamt(photo, toy, what, jitter=8, **given), still)
    free = dreamt(photo, toy, "third", regions=[(left(20), "second")], jitter=8)
    assert not torch.equal(
        free, dreamt(photo, toy, "third", regions=[(left(20), "second")], jitter=0)
    )


def test_a_mask_for_each_picture_of_a_batch(toy: Network) -> None:
    photos = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(2))
    a = left(15, (40, 30))
    each = dreamt(photos, toy, regions=[(torch.cat([a, 1 - a]), "third")], rest="stay", octaves=1)
    moved = (each - photos).abs().amax((1, 2)) > 0
    assert moved[0].tolist() == [True] * 15 + [False] * 15
    assert moved[1].tolist() == [False] * 15 + [True] * 15
    alone = dreamt(photos[1:], toy, regions=[(1 - a, "third")], rest="stay", octaves=1)
    torch.testing.assert_close(each[1:], alone, rtol=0, atol=1e-5)


def test_a_mask_that_no_small_octave_sees(toy: Network, photo: Tensor) -> None:
    mask = torch.zeros(1, 1, 48, 40)
    mask[..., 20, 20] = 1
    image = dreamt(photo, toy, regions=[(mask, "third")], rest="stay", octaves=4, laplacian=2)
    assert image.isfinite().all()
    assert (image - photo)[0, :, 20, 20].abs().max() > 0


# How


def test_tiles_are_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    network = seeded(padded(), "fp64")
    photo = picture(96, 117) / 2 + 0.25
    mask = picture(96, 117, seed=3)[:, :1]
    given: dict[str, Any] = {"precision": "fp64", "jitter": 9, "regions": [
        (mask, "eight"), ((mask > 0.4).double(), "layer(four, norm=l2) - 0.1*tv()")]}  # fmt: skip
    whole, cut = (steps(photo, network, "two:1", tile=tile, **given) for tile in ("off", 24))
    assert [step.tile for step in cut] == [24] * 6
    for a, b in zip(cut, whole, strict=True):
        torch.testing.assert_close(a.image, b.image, rtol=0, atol=1e-9)
        assert a.region_scores is not None
        torch.testing.assert_close(a.region_scores, b.region_scores)


def test_what_stays_has_no_objective(
    toy: Network, photo: Tensor, asked: list[tuple[str, ...]]
) -> None:
    given: dict[str, Any] = {"regions": [(left(20), "second"), (left(9), "first")]}
    named = dreamt(photo, toy, "third", rest="stay", **given)
    assert set(asked) == {("second", "first")}
    assert len(asked) == 6  # a pass a step
    assert torch.equal(dreamt(photo, toy, rest="stay", **given), named)
    asked.clear()
    dreamt(photo, toy, "third", **given)
    assert set(asked) == {("second", "first", "third")}
    # The rest's objective is the preset's where none is named, and toy has none of those.
    with pytest.raises(SettingsError, match="names no layers of toy"):
        dreamt(photo, toy, preset="keras", **given)


def test_scores_are_told_apart_and_together(toy: Network, photo: Tensor) -> None:
    photos = torch.cat([photo, photo.flip(-1)])
    given: dict[str, Any] = {"octaves": 1, "steps": 2, "jitter": 0}
    alone = {
        what: steps(photos, toy, what, **given)[0].score for what in ("first", "third", "second")
    }
    regions = [(left(20), "first"), (left(30), "third")]
    step = steps(photos, toy, "second", regions=regions, **given)[0]
    assert step.region_scores is not None
    assert step.region_scores.shape == (2, 2)
    torch.testing.assert_close(step.region_scores, torch.stack([alone["first"], alone["third"]]))
    torch.testing.assert_close(step.score, sum(alone.values(), torch.zeros(2, device=DEVICE)))
    one, other = step.region_scores.mean(1).tolist()
    assert step.text.endswith(f"score {step.score.mean():.4g}  regions {one:.4g}, {other:.4g}")
    stays = steps(photos, toy, regions=regions, rest="stay", **given)[0]
    torch.testing.assert_close(stays.score, alone["first"] + alone["third"])
    plain = steps(photos, toy, "second", **given)[0]
    assert plain.region_scores is None
    assert "regions" not in plain.text
    # An octave ends by the sum.
    most = float(stays.score.mean())
    for limit, count in ((most - 1e-3, 1), (most + 1e6, 2)):
        taken = steps(photos, toy, regions=regions, rest="stay", stop_above=limit, **given)
        assert len(taken) == count


@pytest.mark.parametrize(("rest", "count"), [("dream", 3), ("stay", 2)])
def test_a_plan_counts_every_gradient(
    rest: Any, count: int, toy: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `test_a_plan_counts_the_pictures_that_are_there`, in tiles, of which all are there."""
    size = (101, 67)
    told: list[int] = []
    recipe = sys.modules[DreamStep.__module__]
    real_evaluation, real_activations = recipe.AdaptiveEvaluation, Network.activations

    def evaluation(*given: Any, buffers: int, between: int, **more: Any) -> Any:
        assert between > buffers
        found = real_evaluation(*given, buffers=buffers, between=between, **more)
        told.append(buffers)
        return found

    held: list[float] = []

    def activations(self: Network, image: Tensor, layers: Any, **more: Any) -> Any:
        if image.requires_grad and told and len(held) < 8:  # looking about takes long
            storages = {
                found.untyped_storage().data_ptr(): found.untyped_storage().nbytes()
                for found in gc.get_objects()
                if type(found) in (Tensor, nn.Parameter) and found.shape[-2:] == size
            }
            held.append(sum(storages.values()) / (3 * 4 * size[0] * size[1]))
        return real_activations(self, image, layers, **more)

    monkeypatch.setattr(recipe, "AdaptiveEvaluation", evaluation)
    monkeypatch.setattr(Network, "activations", activations)
    photo = torch.rand(1, 3, *size)
    regions = [(torch.rand(1, 1, *size), "third"), (torch.rand(1, 1, *size), "second")]
    dreamt(photo, toy, "first", octaves=1, tile=64, regions=regions, rest=rest)
    (buffers,) = told
    of_the_caller = 1 + 2 / 3
    there = max(held) - of_the_caller
    assert there >= 1 + count + 2 * count / 3  # the picture, gradients, weights, and these blurred
    assert buffers - 2 <= there <= buffers


# What is wrong


MASK = torch.ones(1, 1, 8, 8)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([(np.ones((8, 8)), "third")], r"the mask of region 1 is a tensor \(1, 1, H, W\).*numpy"),
        (
            [(MASK, "third"), (MASK[0], "third")],
            r"mask of region 2 is .*torch\.float32 \(1, 8, 8\)",
        ),
        ([(torch.ones(1, 3, 8, 8), "third")], r"for 1 picture is \(1, 1, H, W\).*\(1, 3, 8, 8\)"),
        ([(torch.ones(2, 1, 8, 8), "third")], r"for 1 picture is .*\(2, 1, 8, 8\)"),
        ([(MASK.bool(), "third")], r"of floating numbers in \[0, 1\]; this one is torch\.bool"),
        ([(0 * MASK, "third")], "the mask of region 1 is black everywhere: a region of nothing"),
    ],
)
def test_masks_that_are_none(toy: Network, regions: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        dream.steps(torch.rand(1, 3, 8, 8), toy, "third", regions=regions)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"regions": [MASK]}, "region 1 is Tensor; expected a pair of a mask and an objective"),
        ({"regions": (MASK, "third")}, "region 1 is Tensor; expected a pair"),
        ({"regions": "third"}, "region 1 is str; expected a pair"),
        ({"regions": 3}, "region 1 is int; expected a pair"),
        ({"regions": [(MASK, "third"), ("third", MASK)]}, r"region 2 is \(str, Tensor\); expected"),
        ({"regions": [(MASK, "third", 1)]}, r"region 1 is \(Tensor, str, int\); expected"),
        ({"rest": "stay"}, "rest stay goes with regions, and there is none: name one, --region"),
        ({"rest": "stay", "regions": []}, "rest stay goes with regions"),
        (
            {"rest": "sleep", "regions": [(MASK, "third")]},
            "rest: input should be 'dream' or 'stay'",
        ),
    ],
)
def test_regions_that_are_none(toy: Network, given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=f"^{message}") as caught:
        dream.steps(torch.rand(1, 3, 8, 8), toy, "third", **given)
    assert "\n" not in str(caught.value)


def test_no_regions_are_a_plain_dream(toy: Network, photo: Tensor) -> None:
    plain = dreamt(photo, toy, "third")
    for none in (None, [], ()):
        assert torch.equal(dreamt(photo, toy, "third", regions=none, rest="dream"), plain)


def test_only_a_recipe_that_says_so_takes_them() -> None:
    import phosphene

    assert recipe_named("dream").schema()["regions"] is True
    for name in ("caricature", "visualize", "sheet"):
        assert recipe_named(name).schema()["regions"] is False
    with pytest.raises(SettingsError, match="no setting 'regions'"):
        phosphene.caricature(torch.rand(1, 3, 8, 8), None, "third", regions=[])  # pyright: ignore
    with pytest.raises(Exception, match="invert takes no regions"):
        Request(recipe="invert", regions=(Region(mask="region-1", objective="x"),),
                inputs={"region-1": InputFile(path="a.png")})  # fmt: skip


# Requests and files


@pytest.fixture
def here(workplace: Path) -> Path:
    """A folder with a photograph, another picture, and masks of its left and of its top."""
    rng = np.random.default_rng(0)
    for name in ("photo.png", "other.png"):
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((40, 32)).save(workplace / name)
    side = np.zeros((32, 40), np.uint8)
    side[:, :20] = 255
    Image.fromarray(side).save(workplace / "left.png")
    top = np.zeros((16, 20), np.uint8)
    top[:8] = 255
    Image.fromarray(top).save(workplace / "top.png")
    Image.fromarray(side * 0).save(workplace / "black.png")
    return workplace


def request(**changes: Any) -> Request:
    inputs = {"photo": "photo.png", "region-1": "left.png", "region-2": "top.png"}
    given: dict[str, Any] = {
        "recipe": "dream",
        "network": NET,
        "objectives": ("second",),
        "regions": (
            Region(mask="region-1", objective="first"),
            Region(mask="region-2", objective="second:3"),
        ),
        "inputs": {role: InputFile(path=path) for role, path in inputs.items()},
        "settings": {"steps": 2, "octaves": 1, "device": DEVICE, "precision": "fp32"},
        "outputs": {"picture": "out.png"},
    }
    return Request(**(given | changes))


WEIGHTS = "0" * 64


def test_a_request_with_regions_reads_back(here: Path) -> None:
    one = request()
    assert Request.parse(one.text()) == one
    assert json.loads(one.text())["regions"] == [
        {"mask": "region-1", "objective": "first"},
        {"mask": "region-2", "objective": "second:3"},
    ]
    plain = request(regions=(), inputs={"photo": InputFile(path="photo.png")})
    assert "regions" not in plain.text()
    assert "rest" not in plain.text()


# Computed by the version before there were regions.
KEY_BEFORE = "5e6472d8055c730dbcd9f29069f8cb0f1d42f908a7b15423e76ad709e9c0c523"


def test_the_key_of_what_has_no_regions_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phosphene.jobs.request.NUMERICS", 1)
    inputs = {"photo": InputFile(path="photo.png", sha256="a" * 64)}
    given = {"steps": 2, "octaves": 1, "device": "cpu", "precision": "fp32", **PLAIN}
    plain = request(regions=(), inputs=inputs, settings=given)
    assert plain.key(WEIGHTS) == KEY_BEFORE


def test_the_key_is_of_regions_too_and_of_no_names(here: Path) -> None:
    key = request().pinned().key(WEIGHTS)
    shutil.copy("left.png", "links.png")
    paths = {"photo": "photo.png", "a": "links.png", "b": "top.png"}
    regions = (Region(mask="a", objective=" first "), Region(mask="b", objective="second:3"))
    inputs = {role: InputFile(path=path) for role, path in paths.items()}
    assert request(regions=regions, inputs=inputs).pinned().key(WEIGHTS) == key
    swapped = (Region(mask="b", objective="first"), Region(mask="a", objective="second:3"))
    stays = {"steps": 2, "octaves": 1, "device": DEVICE, "precision": "fp32", "rest": "stay"}
    others = [
        request(regions=swapped, inputs=inputs),
        request(regions=regions[:1], inputs=inputs),
        request(settings=stays),
        request(settings=stays, objectives=()),
    ]
    keys = {other.pinned().key(WEIGHTS) for other in others}
    assert len(keys - {key}) == len(others)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"regions": (Region(mask="sky", objective="first"),)},
            "no input is called 'sky', the mask",
        ),
        (
            {"regions": (Region(mask="photo", objective="first"),)},
            "the mask of a region is the photo",
        ),
        ({"regions": (), "settings": {"rest": "stay"}}, "rest stay goes with regions"),
    ],
)
def test_requests_that_are_none(changes: dict[str, Any], message: str, here: Path) -> None:
    with pytest.raises(ValueError, match=message):
        request(**changes)


FLAGS = (
    "--network",
    NET,
    "--steps",
    "2",
    "--octaves",
    "2",
    "--device",
    "cpu",
    "--precision",
    "fp32",
)


def test_a_picture_in_a_regions_objective_is_named_by_its_role(here: Path, say: Say) -> None:
    (here / "sub").mkdir()
    shutil.copy("other.png", "sub/other.png")
    words = ("--region", 'left.png=guide(first, "sub/other.png", by=dot)', "--rest", "stay")
    done = say("dream", "photo.png", *words, *FLAGS, "--save-request", "job.json")
    assert done.code == 0, done
    saved, manifest = Request.read("job.json"), Manifest.read("photo-dream.png")
    text = 'guide(first, "other.png", by="dot")'
    assert saved.regions == manifest.regions == (Region(mask="region-1", objective=text),)
    assert saved.inputs["other.png"].path == "sub/other.png"
    assert manifest.objectives == ()
    assert str(here) not in manifest.text()
    assert "sub" not in manifest.text()
    assert set(manifest.inputs) == {"photo", "region-1", "other.png"}
    # A request of a stranger names no other file, and every file that it names is used.
    spare = {**saved.inputs, "spare": saved.inputs["photo"]}
    for changed, words in (
        ({"inputs": spare}, "nothing in the request names its input 'spare'"),
        (
            {"inputs": {r: e for r, e in saved.inputs.items() if r != "other.png"}},
            "its inputs do not",
        ),
    ):
        Path("bad.json").write_text(saved.model_copy(update={**changed, "outputs": {}}).text())
        done = say("run", "bad.json", "--network", NET, "-o", "b.png")
        assert done.code == 1
        assert words in done.err


def test_guide_changes_the_main_objective_alone(here: Path, say: Say) -> None:
    words = ("dream", "photo.png", "--region", "left.png=first", "--guide", "other.png", *FLAGS)
    assert say(*words, "--objective", "second").code == 0
    manifest = Manifest.read("photo-dream.png")
    assert manifest.objectives == ('guide(second, "other.png")',)
    assert manifest.regions[0].objective == "first"
    done = say(*words, "--rest", "stay", "--force")
    assert done.code != 0
    assert "--guide changes the objective of the rest, and the rest stays" in done.err


def test_an_objective_that_is_not_dreamt_is_told(here: Path, say: Say) -> None:
    words = ("dream", "photo.png", "--region", "left.png=first", "--rest", "stay", *FLAGS)
    done = say(*words, "--objective", "second")
    assert done.code == 0, done
    assert "the rest stays: second is not dreamt" in done.err


def test_old_manifests_dream_the_rest() -> None:
    assert DreamSettings.model_fields["rest"].default == "dream"
    folder = Path(__file__).parent / "data" / "before"
    for name in ("plain.png", "mask-and-colours.png", "size.json"):
        manifest = Manifest.read(folder / name)
        assert "rest" not in manifest.settings
        assert manifest.checked_settings().rest == "dream"  # pyright: ignore
        assert manifest.regions == ()
        assert '"regions"' not in manifest.text()


# The command line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("left.png=first", ("left.png", "first")),
        (
            'left.png=guide(first, "a=b.png", by=dot)',
            ("left.png", 'guide(first, "a=b.png", by=dot)'),
        ),
        ("a=b.png=first", ("a=b.png", "first")),
        ("a=b.png=layer(first, norm=l2)", ("a=b.png", "layer(first, norm=l2)")),
        ("gone.png=layer(first, norm=l2)", ("gone.png", "layer(first, norm=l2)")),
        (r"C:\masks\sky.png=first", (r"C:\masks\sky.png", "first")),
    ],
)
def test_a_region_is_split_where_its_file_ends(
    text: str, expected: tuple[str, str], here: Path
) -> None:
    shutil.copy("left.png", "a=b.png")
    assert split_region(text) == expected


def refused(done: Done, *words: str) -> None:
    lines = done.err.strip().splitlines()
    assert done.code in (1, 2), done
    assert lines[-1].startswith("phosphene: "), done
    assert "Traceback" not in done.err
    assert all(word in lines[-1] for word in words), done.err
    assert not done.out


def test_a_painted_picture_and_its_replay_are_the_same_to_the_byte(here: Path) -> None:
    words = ("dream", "photo.png", "--objective", "second", "--region", "left.png=first",
             "--region", 'top.png=second:3 + guide(second, "other.png")', *FLAGS)  # fmt: skip
    done = run(*words, "-o", "one.png", "--recipe", "one.json", cwd=here)
    assert done.code == 0, done
    assert "mask resized 20x16 -> 40x32" in done.err
    again = run(*words, "-o", "two.png", cwd=here)
    assert again.code == 0, again
    assert (here / "one.png").read_bytes() == (here / "two.png").read_bytes()
    # From another folder, the files by their names beside it.
    (here / "moved").mkdir()
    for name in ("one.png", "photo.png", "left.png", "top.png", "other.png"):
        shutil.copy(here / name, here / "moved" / name)
    done = run("replay", "moved/one.png", "--network", NET, "-o", "three.png", cwd=here)
    assert (done.code, done.err.count("different")) == (0, 0), done
    assert "the same, pixel for pixel" in done.out
    assert (here / "three.png").read_bytes() == (here / "one.png").read_bytes()
    manifest = Manifest.read(here / "one.json")
    assert [region.mask for region in manifest.regions] == ["region-1", "region-2"]
    assert manifest.inputs["region-2"].name == "top.png"
    assert manifest.settings["rest"] == "dream"
    (here / "moved" / "top.png").unlink()
    (here / "top.png").rename(here / "other-name.png")
    done = run("replay", "moved/one.png", "--network", NET, cwd=here)
    refused(done, "'top.png', the recipe's region-2, is not in", "--input region-2=PATH")
    more = ("--input", "region-2=other-name.png")
    assert run("replay", "moved/one.png", "--network", NET, *more, cwd=here).code == 0


def test_a_saved_request_paints_the_same_elsewhere(here: Path) -> None:
    words = ("dream", "photo.png", "--region", "left.png=first", "--rest", "stay", *FLAGS)
    done = run(*words, "-o", "out.png", "--save-request", "job.json", "--dry-run", cwd=here)
    assert done.code == 0, done
    assert not (here / "out.png").exists()
    assert run("run", "job.json", "--network", NET, cwd=here).code == 0
    one, photo = (np.asarray(Image.open(here / name)) for name in ("out.png", "photo.png"))
    assert np.array_equal(one[:, 28:], photo[:, 28:])
    assert np.abs(one.astype(int) - photo)[:, :20].mean() > 1
    # A mask that has been painted over since is not the one that was meant.
    shutil.copy(here / "top.png", here / "left.png")
    done = run("run", "job.json", "--network", NET, "--force", cwd=here)
    refused(done, "is not the request's region-1")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--region", "left.png"), ("--region 'left.png'", "expected MASK=OBJECTIVE")),
        (("--region", "=first"), ("--region '=first'", "expected MASK=OBJECTIVE")),
        (("--region", "left.png="), ("expected MASK=OBJECTIVE, such as sky.png=mixed5a",)),
        (("--region", "gone.png=first"), ("there is no file 'gone.png'",)),
        (("--region", "text.png=first"), ("text.png", "no picture")),
        (
            ("--region", "black.png=first"),
            ("'black.png' is black everywhere: a region of nothing",),
        ),
        (("--region", "left.png=frist"), ("toy has no layer 'frist'", "first")),
        (("--region", "left.png=first +"), ("first +",)),
        (("--rest", "stay"), ("rest stay goes with regions", "--region MASK=OBJECTIVE")),
        (("--region", "left.png=first", "-o", "left.png", "--force"), ("region-1 itself",)),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    words: tuple[str, ...], told: tuple[str, ...], here: Path
) -> None:
    (here / "text.png").write_text("no picture at all")
    before = {path: path.read_bytes() for path in here.iterdir() if path.is_file()}
    done = run("dream", "photo.png", "--objective", "second", *FLAGS, *words, cwd=here)
    refused(done, *told)
    assert before == {path: path.read_bytes() for path in here.iterdir() if path.is_file()}


def test_gradient_transforms_look_within_a_region_too(toy: Network, photo: Tensor) -> None:
    parts = [(left(13), "third"), (1 - left(13), "second")]
    given: dict[str, Any] = {"rest": "stay", "regions": parts}
    named = dreamt(photo, toy, smooth=0, gradient_transforms="smooth(1.5)", **given)
    assert torch.equal(named, dreamt(photo, toy, smooth=1.5, **given))


def test_regions_go_on_from_any_step(toy: Network, photo: Tensor) -> None:
    given: dict[str, Any] = {"regions": [(left(13), "third"), (1 - left(20), "second")]}
    whole = steps(photo, toy, "first", **given)
    states = [step.state() for step in steps(photo, toy, "first", **given)]
    for k, state in enumerate(states[:-1]):
        rest = steps(photo, toy, "first", state=state, **given)
        assert len(rest) == len(whole) - k - 1
        for then, now in zip(whole[k + 1 :], rest, strict=True):
            assert torch.equal(then.picture(), now.picture())
            assert then.region_scores is not None
            assert now.region_scores is not None
            assert torch.equal(then.region_scores, now.region_scores)
    (last,) = steps(photo, toy, "first", state=states[-1], **given)
    assert last.region_scores is not None
    assert torch.equal(last.picture(), whole[-1].picture())
