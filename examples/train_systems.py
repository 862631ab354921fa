"""Train a small network of every system on data that needs no download, and print how its loss falls.

    python examples/train_systems.py [NAME ...] [--steps 60]

Images are the 8×8 handwritten digits of scikit-learn; event frames are digits that move; sequences are digits pixel by
pixel in one shuffled order; streams show a class for a few steps between noise; tokens follow a random automaton;
videos are moving digits. A few seconds a system on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pararev_hw import models
from pararev_hw.training.data import digits

SMALL = {
    "revsformer_2_384": {"width": 1 / 8, "timesteps": 2, "size": 16},
    "pararevsformer_2_384": {"width": 1 / 8, "timesteps": 2, "size": 16},
    "spikingformer_2_384": {"width": 1 / 8, "timesteps": 2, "size": 16},
    "trevsnn_tiny": {"width": 1 / 8, "timesteps": 4, "size": 32, "kernel_size": 3},
    "zeromem_vgg11": {"width": 1 / 8, "timesteps": 4, "size": 16},
    "zeromem_resnet18": {"width": 1 / 8, "timesteps": 4, "size": 16},
    "ottt_vgg11": {"width": 1 / 4, "timesteps": 4, "size": 16},
    "ottt_vgg11_dvs": {"width": 1 / 4, "timesteps": 6, "size": 16},
    "sltt_vgg11": {"width": 1 / 4, "timesteps": 4, "size": 16},
    "dsr_preactresnet18": {"width": 1 / 8, "timesteps": 10, "size": 16},
    "dsr_vgg11_dvs": {"width": 1 / 8, "timesteps": 10, "size": 16},
    "ptl_alexnet_stage1": {"width": 1 / 8, "timesteps": 8, "size": 32},
    "ptl_alexnet": {"width": 1 / 8, "timesteps": 8, "size": 32},
    "lru_scifar": {"width": 1 / 8, "timesteps": 64, "depth": 2},
    "dsf_gru": {"width": 1 / 16, "timesteps": 32, "depth": 1, "classes": 12},
    "dsf_lstm": {"width": 1 / 16, "timesteps": 32, "depth": 1, "classes": 12},
    "dsf_rnn": {"width": 1 / 16, "timesteps": 32, "depth": 1, "classes": 12},
    "neverreset_gru": {"width": 1 / 4, "timesteps": 24},
    "neverreset_snn": {"width": 1 / 4, "timesteps": 24},
    "video_fcnn": {"width": 1 / 16, "timesteps": 10, "depth": 2, "chunk": 4, "size": 16},
    "video_crnn": {"width": 1 / 4, "timesteps": 10, "chunk": 4, "size": 16},
    "video_clstm": {"width": 1 / 4, "timesteps": 10, "chunk": 4, "size": 16},
    "bnn_resnet18": {"width": 1 / 8, "timesteps": 1, "size": 32},
}
BATCH = 32


def batches(
    layout: str, channels: int, steps: int, size: int, classes: int, seed: int = 0
) -> Iterator[tuple[Tensor, ...]]:
    """Batches without end, each (x, y) or (x,), in the layout of a network."""
    g = torch.Generator().manual_seed(seed)
    if layout == "tokens":
        successors = torch.randint(0, classes, (classes, 2), generator=g)  # two ways on from every token
        while True:
            tokens = [torch.randint(0, classes, (BATCH,), generator=g)]
            for _ in range(steps):
                way = (torch.rand(BATCH, generator=g) < 0.1).long()
                tokens.append(successors[tokens[-1], way])
            whole = torch.stack(tokens, 1)
            yield whole[:, :-1], whole[:, 1:]
    if layout == "steps":
        patterns = torch.randn(classes, channels, generator=g)
        while True:
            y = torch.full((BATCH, steps), -1)
            x = 0.3 * torch.randn(BATCH, steps, channels, generator=g)
            shown = torch.randint(0, classes, (BATCH,), generator=g)
            begin = torch.randint(0, steps - 6, (BATCH,), generator=g)
            for b in range(BATCH):
                at = slice(int(begin[b]), int(begin[b]) + 6)
                x[b, at] += patterns[shown[b]]
                y[b, at] = shown[b]
            yield x, y
    data = digits(size=max(size, 8), channels=channels if layout == "image" else 1)
    order = torch.randperm(64, generator=g)
    while True:
        chosen = torch.randint(0, len(data.train_x), (BATCH,), generator=g)
        x, y = data.train_x[chosen], data.train_y[chosen]
        match layout:
            case "image":
                yield x, y
            case "sequence":
                small = nn.functional.adaptive_avg_pool2d(x, 8).flatten(1)[:, order]
                yield small.unsqueeze(2).expand(-1, -1, channels), y
            case "events":
                moving = torch.stack([x.roll((t, t), (2, 3)) for t in range(steps)])
                yield (moving > 0.5).float().expand(-1, -1, channels, -1, -1), y
            case _:
                yield (torch.stack([x.roll((t, t), (2, 3)) for t in range(steps)], 1),)


def train(name: str, steps: int, seed: int = 0) -> list[float]:
    """The loss of every training step."""
    options = dict(SMALL[name])
    spec, size, classes = models.spec(name), int(options.pop("size", 8)), int(options.pop("classes", 10))
    channels = spec.input_shape[0] if spec.input_shape else 0
    torch.manual_seed(seed)
    network = models.create(name, num_classes=classes, **options).train()
    timesteps = int(options["timesteps"])
    data = batches(spec.layout, channels, timesteps, size, classes, seed)
    if name.startswith("ptl"):
        network.calibrate(next(data)[0])
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(steps):
        batch = next(data)
        if hasattr(network, "training_step"):
            losses.append(float(network.training_step(batch, optimizer)))
            continue
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(network(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network of every system.")
    parser.add_argument("names", nargs="*", default=list(SMALL), metavar="NAME")
    parser.add_argument("--steps", type=int, default=60)
    asked = parser.parse_args()
    print(f"{'network':24} {'first 5':>9} {'last 5':>9}   loss, means over {asked.steps} steps of {BATCH} samples")
    for name in asked.names:
        if name not in SMALL:
            parser.error(f"no small form of {name!r}: one of {', '.join(SMALL)}")
        losses = train(name, asked.steps)
        print(f"{name:24} {sum(losses[:5]) / 5:9.4f} {sum(losses[-5:]) / 5:9.4f}", flush=True)


if __name__ == "__main__":
    main()
