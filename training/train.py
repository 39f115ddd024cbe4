"""Train a bundled network, on two CPU cores or on a GPU; resumable, seeded, logged.

    python -m training.train --data tiny-imagenet-140 --out runs/plain
    python -m training.train --data tiny-imagenet-140 --out runs/robust \\
        --init runs/plain/checkpoint.pt --epsilon 0.5 --epochs 3 --small-epochs 2 --rate 0.1

With `--epsilon` each batch is attacked before it is learnt (Madry et al. 2018; one random start
and one step, as Wong et al. 2020), which makes input gradients perceptually meaningful
(Engstrom et al. 2019, "Adversarial robustness as a prior for learned representations").
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from phosphene.zoo.dreamnet import MEAN, STD, DreamNet
from training import data


@dataclass(frozen=True)
class Settings:
    """What a run is made of; the checkpoint carries it."""

    epochs: int = 16
    small_epochs: int = 10
    small_side: int = 48
    batch: int = 128
    rate: float = 0.3
    weight_decay: float = 5e-5
    smoothing: float = 0.1
    averaging: float = 0.998
    epsilon: float = 0.0
    pictures: int = 0
    seed: int = 0


def preprocess(images: Tensor) -> Tensor:
    """[0, 1] -> what the network takes."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    return (images - mean) / std


def logits(model: nn.Module, images: Tensor) -> Tensor:
    """Logits in float32 of pictures in [0, 1], computed in bfloat16."""
    with torch.autocast(images.device.type, torch.bfloat16):
        return model(preprocess(images)).float()


def unit(direction: Tensor) -> Tensor:
    """Each picture's direction scaled to l2 length 1."""
    length = direction.flatten(1).norm(dim=1).clamp_min(1e-12)
    return direction / length.view(-1, 1, 1, 1)


def to_ball(offset: Tensor, epsilon: float) -> Tensor:
    """Each picture's offset shortened to l2 length `epsilon` where it is longer."""
    length = offset.flatten(1).norm(dim=1).clamp_min(1e-12)
    return offset * (epsilon / length).clamp(max=1).view(-1, 1, 1, 1)


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    steps: int = 1,
    size: float | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Pictures within l2 distance `epsilon` that raise the loss: projected gradient ascent."""
    start = unit(torch.randn(images.shape, generator=generator).to(images.device))
    offset = start * (epsilon / 2)
    for _ in range(steps):
        offset = offset.detach().requires_grad_()
        loss = F.cross_entropy(logits(model, images + offset), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, offset)
        with torch.no_grad():
            offset = to_ball(offset + unit(gradient) * (size or epsilon), epsilon)
            offset = (images + offset).clamp_(0, 1) - images
    return (images + offset).detach().contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(model: nn.Module, pictures: data.Pictures, device: torch.device) -> float:
    """Top-1 on clean pictures, without augmentation."""
    model.eval()
    right = 0
    for images, labels in zip(pictures.images.split(500), pictures.labels.split(500), strict=True):
        guess = logits(model, data.normalised(images, device)).argmax(1).cpu()
        right += int((guess == labels).sum())
    return right / len(pictures)


def save_atomically(state: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def forget_after(epoch: int, log: Path) -> None:
    """Drop the log's rows after `epoch`: a run killed before it saved that epoch logs it anew."""
    if log.exists():
        header, *rows = log.read_bytes().splitlines(keepends=True) or [b""]
        rows = [row for row in rows if int(row.split(b",")[0]) <= epoch]
        if rows:
            log.write_bytes(header + b"".join(rows))
        else:
            log.unlink()


def plot(log: Path, picture: Path) -> None:
    """Loss and accuracy by epoch, drawn from the log."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with log.open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    epochs = [row["epoch"] for row in rows]
    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    left.plot(epochs, [row["loss"] for row in rows], color="tab:red")
    left.set(xlabel="epoch", ylabel="training loss")
    right = left.twinx()
    right.plot(epochs, [row["top1"] * 100 for row in rows], color="tab:blue")
    right.set_ylabel("validation top-1, %")
    figure.savefig(picture, dpi=100)
    plt.close(figure)


def train(
    settings: Settings,
    folder: Path,
    out: Path,
    *,
    init: Path | None = None,
    device: torch.device,
    minutes_between_checkpoints: float = 5,
) -> Path:
    """Run, or take up again, the training in `out`; returns the checkpoint's path."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = out / "checkpoint.pt", out / "log.csv"
    torch.manual_seed(settings.seed)
    pictures, held_out = data.load(folder, "train"), data.load(folder, "val")
    if settings.pictures:
        pictures = pictures.subset(settings.pictures)
        held_out = held_out.subset(min(settings.pictures, len(held_out)))

    model = DreamNet(len(pictures.classes), batch_norm=True)
    model = model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if init is not None:
        model.load_state_dict(torch.load(init, map_location=device, weights_only=True)["averaged"])
    average_fn = get_ema_multi_avg_fn(settings.averaging)
    averaged = AveragedModel(model, multi_avg_fn=average_fn, use_buffers=True)
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=settings.rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=settings.weight_decay,
    )
    per_epoch = len(pictures) // settings.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        settings.rate,
        total_steps=settings.epochs * per_epoch,
        pct_start=0.2,
        cycle_momentum=False,
    )
    epoch, done, seconds, total = 0, 0, 0.0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state["settings"] != dataclasses.asdict(settings):
            raise SystemExit(f"{checkpoint} was made with other settings: {state['settings']}")
        model.load_state_dict(state["model"])
        averaged.module.load_state_dict(state["averaged"])
        averaged.n_averaged.fill_(state["n_averaged"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        epoch, done, seconds, total = (state[k] for k in ("epoch", "done", "seconds", "total"))
    forget_after(epoch, log)

    def keep() -> None:
        save_atomically(
            {
                "settings": dataclasses.asdict(settings),
                "classes": pictures.classes,
                "model": model.state_dict(),
                "averaged": averaged.module.state_dict(),
                "n_averaged": int(averaged.n_averaged),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "epoch": epoch,
                "done": done,
                "seconds": seconds,
                "total": total,
            },
            checkpoint,
        )

    while epoch < settings.epochs:
        side = settings.small_side if epoch < settings.small_epochs else data.SIDE
        # The order is a function of seed and epoch, so a resumed epoch sees what was left of it.
        order = torch.Generator().manual_seed(settings.seed * 1009 + epoch)
        noise = torch.Generator().manual_seed((settings.seed * 1009 + epoch) * 9973 + done)
        clock = kept = time.monotonic()
        for number, index in enumerate(data.batches(len(pictures), settings.batch, order)):
            if number < done:
                continue
            images = data.normalised(pictures.images[index], device)
            labels = pictures.labels[index].to(device)
            images = data.augment(images, side, noise)
            if settings.epsilon:
                model.eval()
                # The same offset a pixel at each size.
                radius = settings.epsilon * side / data.SIDE
                images = attack(model, images, labels, radius, generator=noise)
            model.train()
            loss = F.cross_entropy(
                logits(model, images), labels, label_smoothing=settings.smoothing
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            averaged.update_parameters(model)
            total += float(loss.detach())
            done = number + 1
            now = time.monotonic()
            seconds, clock = seconds + now - clock, now
            if now - kept > 60 * minutes_between_checkpoints:
                keep()
                kept = now
            if done % 50 == 0:
                speed = settings.batch * done / seconds
                print(
                    f"epoch {epoch + 1}/{settings.epochs}  batch {done}/{per_epoch}  "
                    f"loss {total / done:.3f}  {speed:.0f} pictures/s",
                    flush=True,
                )
        top1 = accuracy(averaged.module, held_out, device)
        row = {
            "epoch": epoch + 1,
            "side": side,
            "loss": round(total / max(done, 1), 4),
            "top1": round(top1, 4),
            "seconds": round(seconds, 1),
        }
        first = not log.exists()
        with log.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if first:
                writer.writeheader()
            writer.writerow(row)
        print(f"epoch {epoch + 1}: {row}", flush=True)
        epoch, done, seconds, total = epoch + 1, 0, 0.0, 0.0
        keep()
        plot(log, out / "curve.png")
    return checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of training.fetch")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint, log and curve")
    parser.add_argument("--init", type=Path, help="start from this checkpoint's averaged weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    helps = {
        "epochs": "passes over the pictures",
        "small_epochs": "of these, so many first ones at --small-side, which costs less",
        "small_side": "px, a multiple of 16",
        "batch": "pictures a step",
        "rate": "highest learning rate of the one-cycle schedule",
        "weight_decay": "l2 penalty of the weights",
        "smoothing": "label smoothing",
        "averaging": "decay of the exponential average of the weights",
        "epsilon": "l2 radius of the attack at 64 px, values in [0, 1]; 0 trains plainly",
        "pictures": "use only so many (0: all), for a trial",
        "seed": "of weights, order and augmentation",
    }
    for field in dataclasses.fields(Settings):
        kind = type(field.default)
        flag = "--" + field.name.replace("_", "-")
        text = f"{helps[field.name]} (default {field.default})"
        parser.add_argument(flag, type=kind, default=field.default, help=text)
    given = vars(parser.parse_args())
    settings = Settings(**{f.name: given[f.name] for f in dataclasses.fields(Settings)})
    train(
        settings,
        given["data"],
        given["out"],
        init=given["init"],
        device=torch.device(given["device"]),
    )


if __name__ == "__main__":
    main()
