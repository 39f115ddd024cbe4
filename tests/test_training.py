"""The recipe of the bundled networks, run for real on a few synthetic pictures."""

from __future__ import annotations

import csv
import hashlib
import http.client
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

import phosphene
from phosphene.zoo.dreamnet import BLOCKS, DreamNet
from training import data, evaluate, export, fetch, models, recognise, statistics, train

# Half a minute on two free cores; a busy machine may take much longer, and that is no failure.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
# The last one is in the archive but not asked for.
WNIDS = {"n02": "stripes", "n01": "checks", "n04": "blobs", "n03": "noise"}
CLASSES = {wnid: name for wnid, name in WNIDS.items() if name != "noise"}
SMALL = (
    *("--epochs", "3", "--small-epochs", "1", "--small-side", "32"),
    *("--batch", "15", "--rate", "0.05", "--averaging", "0.8"),
)


def environment() -> dict[str, str]:
    source = str(Path(phosphene.__file__).parents[1])
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "no_proxy": "127.0.0.1",
        "MPLBACKEND": "agg",
    }


def start(module: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"training.{module}", *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run(module: str, *arguments: object, code: int = 0) -> str:
    process = start(module, *arguments)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == code, output
    return output


def texture(name: str, random: np.random.Generator) -> bytes:
    """One 64 px JPEG of a kind that a network can tell from the others."""
    down, right = np.mgrid[:64, :64] * random.uniform(0.6, 0.9)
    phase = random.uniform(0, 6)
    grey = {
        "stripes": lambda: np.sin(down + phase),
        "checks": lambda: np.sign(np.sin(down + phase) * np.sin(right)),
        "blobs": lambda: np.cos(down / 8 + phase) + np.cos(right / 8),
        "noise": lambda: random.normal(size=(64, 64)),
    }[name]()
    colour = random.uniform(20, 60, 3)
    pixels = 128 + grey[..., None] * colour + random.normal(0, 5, (64, 64, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with the layout of tiny-imagenet-200.zip: 60 + 20 pictures a class."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("archive") / "tiny.zip"
    root = "tiny-imagenet-200/"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr(f"{root}wnids.txt", "\n".join(WNIDS))
        words = [f"{w}\t{name}, {name} words" for w, name in WNIDS.items()]
        zipped.writestr(f"{root}words.txt", "\n".join(words))
        for wnid, name in WNIDS.items():
            zipped.writestr(f"{root}train/{wnid}/{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t0\t9\t9\n")
            for i in range(60):
                jpeg = texture(name, random)
                zipped.writestr(f"{root}train/{wnid}/images/{wnid}_{i}.JPEG", jpeg)
        lines = []
        for i in range(80):
            wnid, name = list(WNIDS.items())[i % 4]
            zipped.writestr(f"{root}val/images/val_{i}.JPEG", texture(name, random))
            lines.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t62\t62\n")
        zipped.writestr(f"{root}val/val_annotations.txt", "".join(lines))
        zipped.writestr(f"{root}test/images/test_0.JPEG", texture("noise", random))
    return path


@pytest.fixture(scope="session")
def address(archive: Path) -> Iterator[str]:
    """A server of the archive; `/broken.zip` hangs up half-way."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = archive.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if "broken" in self.path else body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classes") / "three.json"
    path.write_text(json.dumps(CLASSES))
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, address: str, chosen: Path) -> Path:
    """The pictures as the whole recipe reads them, fetched over HTTP by a process."""
    out = tmp_path_factory.mktemp("pictures")
    output = run("fetch", "--out", out, "--source", f"{address}/tiny.zip", "--classes", chosen)
    assert "180 training and 60 validation pictures" in output
    return out


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A training that was killed after its first checkpoint and taken up again."""
    out = tmp_path_factory.mktemp("runs") / "plain"
    first = start("train", "--data", folder, "--out", out, *SMALL)
    limit = time.monotonic() + 600
    while not (out / "checkpoint.pt").exists():
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.02)
    first.kill()
    first.communicate()
    done = models.checkpoint(out / "checkpoint.pt")["epoch"]
    assert 1 <= done < 3
    # As if it had died between logging the next epoch and saving it.
    forget = (out / "log.csv").read_text().splitlines()[: done + 1]
    (out / "log.csv").write_text("\r\n".join([*forget, f"{done + 1},64,9.9,0.9,1.0", ""]))
    run("train", "--data", folder, "--out", out, *SMALL)
    return out


@pytest.fixture(scope="session")
def robust(plain: Path, folder: Path) -> Path:
    out = plain.parent / "robust"
    begin = ("--init", plain / "checkpoint.pt", "--epsilon", "0.5", "--batch", "50")
    short = ("--epochs", "1", "--small-epochs", "0", "--rate", "0.01", "--averaging", "0.5")
    run("train", "--data", folder, "--out", out, *begin, *short)
    return out


@pytest.fixture(scope="session")
def measured(plain: Path, robust: Path, folder: Path) -> dict[str, str]:
    """Everything that follows a training, as processes side by side; what each printed."""
    ours, theirs = robust / "checkpoint.pt", plain / "checkpoint.pt"
    (plain / "clean.json").write_text('{"top1": 0.5}')
    attacks = ("--epsilons", "0.5", "2", "--steps", "3", "--pictures", "30")
    draw = ("--size", "48", "--steps", "12", "--batch", "2", "--length", "2")
    evaluation, recognised = plain / "evaluation.json", robust / "recognised.json"
    figures = ("--figures", plain / "clean.json")
    processes = {
        "help": start("train", "--help"),
        "evaluate": start("evaluate", theirs, "--data", folder, "--out", evaluation, *attacks),
        "export": start("export", theirs, "tiny", "--out", plain, *figures),
        "recognise": start("recognise", ours, theirs, "--out", recognised, *draw),
        "statistics": start(
            *("statistics", "--data", folder, "--out", plain / "natural.npz", "--pictures", "50")
        ),
    }
    outputs = {name: process.communicate(timeout=600)[0] for name, process in processes.items()}
    for name, process in processes.items():
        assert process.returncode == 0, outputs[name]
    return outputs


@pytest.fixture(scope="session")
def trained(plain: Path) -> models.Trained:
    return models.load(plain / "checkpoint.pt")


def log_of(out: Path) -> list[dict[str, float]]:
    with (out / "log.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


# Fetching


def test_fetch_keeps_bytes_order_and_classes(folder: Path, archive: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "classes.json",
        "train.npz",
        "val.npz",
    ]
    classes = json.loads((folder / "classes.json").read_text())
    assert classes[1] == {"wnid": "n01", "name": "checks", "words": "checks, checks words"}
    assert [row["wnid"] for row in classes] == list(CLASSES)
    with np.load(folder / "train.npz") as parts, zipfile.ZipFile(archive) as zipped:
        assert parts["labels"].dtype == np.int16
        assert (parts["labels"] == np.repeat([0, 1, 2], 60)).all()
        begin, end = parts["offsets"][72:74]
        original = zipped.read("tiny-imagenet-200/train/n01/images/n01_12.JPEG")
        assert parts["jpeg"][begin:end].tobytes() == original
        assert parts["offsets"][-1] == len(parts["jpeg"])
    held_out = data.load(folder, "val")
    assert held_out.labels[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert held_out.images.shape == (60, 3, 64, 64)


def test_the_bundled_classes() -> None:
    classes = json.loads(fetch.CLASSES.read_text())
    assert len(classes) == 140
    assert all(len(wnid) == 9 and wnid[0] == "n" for wnid in classes)
    assert len(set(classes.values())) == 140


def test_a_broken_download_leaves_nothing(address: str, chosen: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = ("--source", f"{address}/broken.zip", "--classes", chosen)
    output = run("fetch", "--out", out, *source, code=1)
    assert "broken.zip" in output.splitlines()[-1]
    assert not list(out.iterdir())


def test_a_download_that_breaks_off_is_noticed(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        fetch.download(f"{address}/broken.zip", tmp_path / "tiny.zip")
    assert not list(tmp_path.iterdir())


def test_fetch_names_a_missing_class(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 of the 2 classes.*n99 \(unicorn\)"):
        fetch.pick(archive, {"n01": "checks", "n99": "unicorn"}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_fetch_refuses_another_archive(tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as zipped:
        zipped.writestr("readme.txt", "")
    with pytest.raises(ValueError, match="val_annotations"):
        fetch.pick(other, CLASSES, tmp_path)


# Training


@pytest.mark.slow
def test_a_resumed_run_ends_where_it_should(plain: Path) -> None:
    rows = log_of(plain)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["side"] for row in rows] == [32, 64, 64]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.1
    state = models.checkpoint(plain / "checkpoint.pt")
    assert (state["epoch"], state["done"]) == (3, 0)
    assert state["settings"]["small_side"] == 32
    assert (plain / "curve.png").exists()


@pytest.mark.slow
def test_the_network_learns(trained: models.Trained, folder: Path) -> None:
    held_out = data.load(folder, "val")
    assert evaluate.measure(trained.model, held_out, device=CPU)["top1"] > 0.5


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = train.Settings(
        epochs=2, small_epochs=1, small_side=32, batch=20, rate=0.05, pictures=40, averaging=0.5
    )
    whole = train.train(plan, folder, tmp_path / "whole", device=CPU)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "plot", stop)
        with pytest.raises(KeyboardInterrupt):
            train.train(plan, folder, tmp_path / "parts", device=CPU)
    parts = train.train(plan, folder, tmp_path / "parts", device=CPU)
    expected, found = (models.checkpoint(path)["averaged"] for path in (whole, parts))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_other_settings_are_refused(folder: Path, plain: Path) -> None:
    with pytest.raises(SystemExit, match="other settings"):
        train.train(train.Settings(epochs=9), folder, plain, device=CPU)


@pytest.mark.slow
def test_training_against_an_attack_starts_from_the_plain_weights(
    robust: Path, plain: Path
) -> None:
    after = models.checkpoint(robust / "checkpoint.pt")
    before = models.checkpoint(plain / "checkpoint.pt")["averaged"]["conv1.conv.weight"]
    moved = (after["averaged"]["conv1.conv.weight"] - before).norm() / before.norm()
    assert 0 < moved < 0.2
    assert after["settings"]["epsilon"] == 0.5
    assert [row["epoch"] for row in log_of(robust)] == [1]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 10])
def test_an_attack_stays_in_the_ball_and_raises_the_loss(
    trained: models.Trained, folder: Path, steps: int
) -> None:
    held_out = data.load(folder, "val")
    images, labels = data.normalised(held_out.images[:12], CPU), held_out.labels[:12]
    epsilon = 1.0

    def loss(pictures: torch.Tensor) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(trained.model(train.preprocess(pictures)), labels))

    attacked = train.attack(
        trained.model,
        images,
        labels,
        epsilon,
        steps=steps,
        size=2.5 * epsilon / steps,
        generator=torch.Generator().manual_seed(0),
    )
    distance = (attacked - images).flatten(1).norm(dim=1)
    assert float(distance.max()) <= epsilon * (1 + 1e-5)
    assert float(distance.min()) > epsilon * 0.5
    assert float(attacked.min()) >= 0
    assert float(attacked.max()) <= 1
    noise = train.unit(torch.randn(images.shape, generator=torch.Generator().manual_seed(1)))
    blind = loss((images + noise * epsilon).clamp(0, 1))
    assert loss(attacked) > 1.3 * blind
    assert loss(attacked) > 1.3 * loss(images)


@given(st.integers(1, 4), st.sampled_from([32, 48, 64]), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_augment(count: int, side: int, seed: int) -> None:
    def augmented(images: torch.Tensor, seed: int) -> torch.Tensor:
        return data.augment(images, side, torch.Generator().manual_seed(seed))

    images = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    out = augmented(images, seed)
    assert out.shape == (count, 3, side, side)
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    assert torch.equal(out, augmented(images, seed))
    assert not torch.equal(out, augmented(images, seed + 1))
    # No border of another colour: what is one colour stays one colour.
    flat = augmented(images[:, :, :1, :1].expand(-1, -1, 64, 64).contiguous(), seed)
    torch.testing.assert_close(flat, flat[:, :, :1, :1].expand_as(flat), rtol=0, atol=1e-5)


def test_batches_cover_the_epoch_once() -> None:
    indices = torch.cat(list(data.batches(25, 8, torch.Generator().manual_seed(0))))
    assert len(indices) == 24
    assert len(indices.unique()) == 24


# Measuring


@pytest.mark.slow
@pytest.mark.usefixtures("measured")
def test_evaluate(plain: Path, folder: Path, trained: models.Trained) -> None:
    out = plain / "evaluation.json"
    figures = json.loads(out.read_text())
    assert figures["network"] == "plain"
    assert figures["pictures"] == 30
    clean, near, far = figures["accuracy"]
    assert [clean["epsilon"], near["epsilon"], far["epsilon"]] == [0, 0.5, 2]
    assert clean["top1"] >= near["top1"] >= far["top1"]
    assert far["top1"] < clean["top1"]
    # Of three classes each is among the first five.
    assert far["top5"] == 1
    lines = out.with_suffix(".md").read_text().splitlines()
    assert lines[2] == f"| 0 (clean) | {clean['top1']:.1%} | 100.0% |"
    held_out = data.load(folder, "val").subset(30)
    assert clean["top1"] == pytest.approx(train.accuracy(trained.model, held_out, CPU), abs=0.04)


def test_hits_count_first_and_first_five() -> None:
    class Constant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.arange(10.0).expand(len(x), 10)

    labels = torch.tensor([9, 8, 5, 4, 0])
    assert evaluate.hits(Constant(), torch.zeros(5, 3, 64, 64), labels) == (1, 3)


# Export


def shaken(seed: int = 0) -> DreamNet:
    """A network with BatchNorm whose statistics are anything but the identity."""
    torch.manual_seed(seed)
    model = DreamNet(5, batch_norm=True).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias, 0, 0.3)
        elif isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return model


def test_folding_changes_nothing() -> None:
    model = shaken()
    folded = models.folded(model)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert export.difference(model, folded) < 1e-5
    # The measure itself: an ε forgotten in a single BatchNorm shows.
    with torch.no_grad():
        folded.get_submodule("conv1.conv").weight *= 1.001  # pyright: ignore[reportOperatorIssue]
    assert export.difference(model, folded) > 1e-4


@pytest.mark.slow
def test_export(
    measured: dict[str, str], plain: Path, tmp_path: Path, trained: models.Trained
) -> None:
    assert "float16: logits differ by at most" in measured["export"]
    blob = (plain / "tiny.safetensors").read_bytes()
    card = json.loads((plain / "tiny.json").read_text())
    assert card["sha256"] == hashlib.sha256(blob).hexdigest()
    assert [row["name"] for row in card["classes"]] == list(CLASSES.values())
    assert card["figures"] == {"clean": {"top1": 0.5}}
    assert card["training"]["settings"]["epochs"] == 3
    widths = {layer["name"]: (layer["channels"], layer["stride"]) for layer in card["layers"]}
    assert widths["conv1"] == (32, 2)
    assert widths["mixed4c"] == (BLOCKS["mixed4c"].out, 8)
    assert widths["mixed5b"] == (BLOCKS["mixed5b"].out, 16)
    assert widths["logits"] == (3, 0)
    weights = load_file(plain / "tiny.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    DreamNet(3).load_state_dict(weights)
    unfolded = models.unfolded(models.checkpoint(plain / "checkpoint.pt"))
    exported = models.load(plain / "tiny.safetensors")
    assert exported.name == "tiny"
    assert export.difference(unfolded, trained.model) < 1e-5
    assert 0 < export.difference(unfolded, exported.model) < 5e-3
    differences = export.export(plain / "checkpoint.pt", "again", tmp_path)
    assert differences["folded"] < 1e-5
    assert (tmp_path / "again.safetensors").read_bytes() == blob


def test_weights_beyond_float16_are_refused() -> None:
    model = DreamNet(2)
    with torch.no_grad():
        model.logits.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"logits\.weight"):
        export.half(model)


# Recognition


@pytest.mark.slow
@pytest.mark.usefixtures("measured")
def test_recognise(robust: Path) -> None:
    out = robust / "recognised.json"
    figures = json.loads(out.read_text())
    assert (figures["drawn_by"], figures["named_by"]) == ("robust", "plain")
    assert figures["pictures"] == 3
    assert figures["top5"] == 1
    first = sum(name == seen[0] for name, seen in figures["classes"].items())
    assert figures["top1"] == pytest.approx(first / 3, abs=1e-4)
    assert figures["settings"]["steps"] == 12
    with Image.open(out.with_suffix(".png")) as page:
        assert page.size == (3 * 52 + 4, 48 + 15 + 4)


@pytest.mark.slow
def test_drawing_ascends_and_does_not_depend_on_the_batch(trained: models.Trained) -> None:
    plan = recognise.Settings(size=48, steps=6, length=0.5)
    together = recognise.draw(trained.model, [0, 1, 2], plan, CPU)
    alone = recognise.draw(trained.model, [1], plan, CPU)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=2e-3)
    start = recognise.draw(trained.model, [0, 1, 2], recognise.Settings(size=48, steps=0), CPU)
    assert not torch.equal(start[0], start[1])
    with torch.no_grad():
        after, before = (trained.model(train.preprocess(x)).diag() for x in (together, start))
    assert (after > before + 0.2).all()
    assert float(together.min()) >= 0
    assert float(together.max()) <= 1


@pytest.mark.slow
def test_other_classes_cannot_judge(trained: models.Trained) -> None:
    stranger = models.Trained("stranger", trained.model, trained.classes[::-1])
    with pytest.raises(ValueError, match="different classes"):
        recognise.recognise(trained, stranger, recognise.Settings(), device=CPU)


def test_captions_tell_how_it_was_named() -> None:
    names = "abcdef"
    seen = {"a": [*names[:5]], "e": [*names[:5]], "f": [*names[:5]]}
    greens = [colour for _, colour in recognise.captions({"classes": seen})]
    assert greens == ["#107010", "#b07000", "#c02020"]


# Statistics


def noise(exponent: float, count: int = 60) -> torch.Tensor:
    """uint8 pictures with magnitude 1/f^exponent and known colours, cut out of larger ones."""
    generator = torch.Generator().manual_seed(0)
    side = 192
    down, right = torch.fft.fftfreq(side), torch.fft.rfftfreq(side)
    radius = torch.hypot(down[:, None], right[None]).clamp_min(1 / side)
    white = torch.randn(count, 3, side, side, generator=generator)
    shaped = torch.fft.irfft2(torch.fft.rfft2(white) / radius**exponent, s=(side, side))
    shaped = shaped / shaped.std(dim=(0, 2, 3), keepdim=True)
    images = 0.5 + torch.einsum("cd,ndhw->nchw", MIX, shaped)
    return (images[..., 64:128, 64:128].clamp(0, 1) * 255).round().byte()


MIX = torch.tensor([[0.10, 0.03, 0.01], [0.10, 0.0, -0.02], [0.10, -0.03, 0.01]])


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5])
def test_the_exponent_of_known_noise(power: float) -> None:
    images = noise(power)
    mean, matrix = statistics.covariance(images)
    spectrum = statistics.spectrum(images, mean, statistics.colour_axes(matrix))
    assert statistics.exponent(spectrum[0]) == pytest.approx(power, abs=0.1)


def test_white_noise_has_the_magnitude_of_unit_variance() -> None:
    images = noise(0.0)
    mean, matrix = statistics.covariance(images)
    spectrum = statistics.spectrum(images, mean, statistics.colour_axes(matrix))
    assert spectrum.shape == (3, 64, 33)
    # The mean magnitude of a complex normal number of unit variance.
    assert float(spectrum[:, 4:60, 4:28].mean()) == pytest.approx(np.sqrt(np.pi) / 2, rel=0.02)


def test_colours_of_known_noise() -> None:
    mean, matrix = statistics.covariance(noise(0.0))
    torch.testing.assert_close(mean, torch.full((3,), 0.5).double(), rtol=0, atol=0.003)
    torch.testing.assert_close(matrix.float(), MIX @ MIX.T, rtol=0.03, atol=2e-4)
    axes = statistics.colour_axes(matrix)
    torch.testing.assert_close(axes @ axes.T, matrix)
    lengths = axes.norm(dim=0)
    assert lengths[0] > lengths[1] > lengths[2]
    assert (axes[:, 0] > 0.05).all()


def test_the_profile_is_that_of_the_whole_plane() -> None:
    image = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).double()
    axis = torch.fft.fftfreq(64, 1 / 64)
    radius = torch.hypot(axis[:, None], axis[None]).round()
    plane = torch.fft.fft2(image).abs()
    expected = torch.stack([plane[radius == r].mean() for r in range(32)])
    torch.testing.assert_close(statistics.profile(torch.fft.rfft2(image).abs()), expected)


@pytest.mark.slow
def test_statistics_as_a_process(measured: dict[str, str], plain: Path) -> None:
    assert "50 pictures" in measured["statistics"]
    with np.load(plain / "natural.npz") as arrays:
        assert {name: values.shape for name, values in arrays.items()} == {
            "mean": (3,),
            "covariance": (3, 3),
            "colour": (3, 3),
            "spectrum": (3, 64, 33),
        }
        assert all(values.dtype == np.float32 for values in arrays.values())


def test_the_bundled_statistics_are_those_of_nature() -> None:
    with np.load(statistics.NATURAL) as arrays:
        colour, covariance = arrays["colour"], arrays["covariance"]
        spectrum = torch.from_numpy(arrays["spectrum"])
    assert np.linalg.norm(colour, axis=0).max() == pytest.approx(1)
    # Luminance first: R, G and B alike; then the two axes of colour, which are weaker.
    assert colour[:, 0] == pytest.approx(colour[:, 0].mean(), rel=0.05)
    assert np.abs(colour[:, 1:].sum(0)).max() < 0.05
    scale = covariance[0, 0] / (colour @ colour.T)[0, 0]
    assert colour @ colour.T * scale == pytest.approx(covariance, rel=1e-4)
    assert 0.9 < statistics.exponent(spectrum[0]) < 1.3
    assert statistics.NATURAL.stat().st_size < 50_000


# Everything


@pytest.mark.slow
def test_help_of_training(measured: dict[str, str]) -> None:
    assert "--small-epochs" in measured["help"]


@pytest.mark.parametrize("module", [fetch, evaluate, export, recognise, statistics])
def test_help(
    module: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["prog", "--help"])
    with pytest.raises(SystemExit) as stopped:
        module.main()  # pyright: ignore[reportAttributeAccessIssue]
    assert stopped.value.code == 0
    assert "--out" in capsys.readouterr().out


@pytest.mark.skipif(
    "PHOSPHENE_PICTURES" not in os.environ,
    reason="set PHOSPHENE_PICTURES to a folder of training.fetch for two minutes of real training",
)
@pytest.mark.timeout(900)
def test_real_pictures(tmp_path: Path) -> None:
    folder = Path(os.environ["PHOSPHENE_PICTURES"])
    plan = train.Settings(
        epochs=16, small_epochs=12, batch=64, rate=0.15, averaging=0.98, pictures=2000
    )
    train.train(plan, folder, tmp_path, device=CPU)
    rows = log_of(tmp_path)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.4
    # Chance is 0.7 %.
    assert rows[-1]["top1"] > 0.03
