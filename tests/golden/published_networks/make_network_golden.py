"""Makes network_golden.json: outputs, running statistics and gradients of the published RevSNN code (float64, CPU).

Made with torch 2.13.0 (CPU), SpikingJelly 0.0.0.0.12 (--no-deps) and mi804/RevSNN at commit COMMIT below:

    python tests/data/make_network_golden.py path/to/RevSNN

The code asks for CuPy neurons; they are switched to SpikingJelly's torch backend, which computes the same.
"""

import importlib
import json
import subprocess
import sys
import types
from pathlib import Path

import torch
from spikingjelly.clock_driven import functional, neuron

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.helpers.deterministic_tensors import fill, fingerprint, noise

COMMIT = "7521f75afb0394d89a8a162ce8e2fe8b0a4f6441"
NETWORKS = (  # our name, our options, [T, B, C, H, W] or [B, C, H, W]; folder, module, how the published code makes it
    (
        "revsresnet21",
        {"width": 0.25},
        (2, 3, 32, 32),
        "cifar100",
        "revs_resnet",
        lambda m: m.revs_resnet(m.BasicResidualBlock, [1, 1, 1, 1], [16, 32, 64, 112], T=4),
    ),
    (
        "revsresnet37",
        {"width": 0.125, "num_classes": 10},
        (3, 3, 16, 16),
        "cifar10",
        "revs_resnet",
        lambda m: m.revs_resnet(m.BasicResidualBlock, [1, 2, 3, 2], [8, 16, 32, 56], num_classes=10, T=4),
    ),
    ("msresnet18", {"timesteps": 3}, (2, 3, 16, 16), "cifar100", "ms_resnet", lambda m: m.ms_resnet18(T=3)),
    ("revsresnet24_dvs", {}, (5, 2, 2, 32, 32), "cifar10-dvs", "revs_resnet", lambda m: m.revs_resnet24()),
    ("msresnet20_dvs", {"num_classes": 11}, (5, 2, 2, 32, 32), "dvs128-gesture", "ms_resnet",
     lambda m: m.ms_resnet20(num_classes=11)),
)  # fmt: skip


def published(checkout: Path, folder: str, module: str) -> types.ModuleType:
    for name in ("revtorch", "revs_resnet", "ms_resnet"):
        sys.modules.pop(name, None)
    sys.path.insert(0, str(checkout / folder))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.pop(0)


def run(name: str, options: dict, shape: tuple[int, ...], net: torch.nn.Module) -> dict:
    net = net.double()
    for m in net.modules():
        if hasattr(m, "backend"):
            m.backend = "torch"
    parameters = dict(net.named_parameters())
    state = [parameters.get(key, value) for key, value in net.state_dict().items()]
    fill(state)
    x = noise(shape, 7).requires_grad_()
    logits = net(x if len(shape) == 4 else x.transpose(0, 1))
    statistics = [fingerprint(b) for b in net.buffers() if b.dim()]
    (logits * noise(tuple(logits.shape), 8)).sum().backward()
    functional.reset_net(net)
    return {
        "name": name,
        "options": options,
        "input": shape,
        "parameters": sum(p.numel() for p in net.parameters()),
        "logits": logits.flatten().tolist()[:40],
        "grad_x": fingerprint(x.grad),
        "grads": [fingerprint(p.grad) for p in net.parameters()],
        "statistics": statistics,
    }


if __name__ == "__main__":
    checkout = Path(sys.argv[1])
    head = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert head.stdout.strip() == COMMIT, f"{checkout} is at {head.stdout.strip()}, not {COMMIT}"
    sys.modules["torchvision"] = types.ModuleType("torchvision")  # imported there, never used
    neuron.check_backend = lambda backend: None
    golden = [
        run(name, options, shape, make(published(checkout, folder, module)))
        for name, options, shape, folder, module, make in NETWORKS
    ]
    lines = ",\n".join(json.dumps(case) for case in golden)
    Path(__file__).with_name("network_golden.json").write_text(f"[\n{lines}\n]\n")
