"""The zoo: published parameter counts, published outputs and gradients, one function in three forms, memory."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pararev_hw import models
from pararev_hw.errors import BadInput, UnknownName
from pararev_hw.models import residual
from pararev_hw.models.convert import _data_order
from pararev_hw.models.residual import OPTIONS
from tests.helpers.deterministic_tensors import fill, fingerprint, noise

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "published_networks" / "network_golden.json").read_text())
RELATIVE = 1e-10  # float64, sums in another order


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def in_data_order(net: nn.Module, tensors: dict[str, Tensor]) -> list[Tensor]:
    return [tensors[name] for name in sorted(tensors, key=_data_order)]


@pytest.mark.parametrize(
    ("name", "form", "classes", "count"),
    [  # the published code's own counts; without their group norm's place, merged stages of one pair are unfused ones
        ("msresnet18", "unfused", 100, 11_220_132),
        ("msresnet18", "unfused", 10, 11_220_132 - 46_170),
        ("revsresnet21", "unfused", 100, 11_048_420),
        ("revsresnet21", "unfused", 10, 11_048_420 - 80_730),
        ("revsresnet37", "unfused", 100, 23_590_884),
        ("pararevsnn21", "unfused", 100, 11_048_420),
        ("pararevsnn21", "merged", 100, 11_048_420),
        ("pararevsnn37", "fused", 100, 21_377_508),
        # a merged block has one BN over c where two had one each: 2c parameters fewer, once per stage of two pairs
        ("pararevsnn37", "merged", 100, 21_377_508 - 2 * (64 + 128 + 256 + 448)),
    ],
)
def test_parameters_are_as_many_as_published(name: str, form: Any, classes: int, count: int) -> None:
    with torch.device("meta"):
        net = models.create(name, form=form, num_classes=classes)
    assert parameters(net) == count


@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: c["name"])
def test_outputs_statistics_and_gradients_equal_the_published_code(case: dict[str, Any]) -> None:
    net = models.create(case["name"], **case["options"]).double()
    own = dict(net.named_parameters())
    fill(in_data_order(net, {k: own.get(k, v) for k, v in net.state_dict().items()}))
    x = noise(tuple(case["input"]), 7).requires_grad_()
    logits = net(x)
    (logits * noise(tuple(logits.shape), 8)).sum().backward()

    def close(found: list[float], expected: list[float]) -> None:
        scale = abs(expected[0]) if len(expected) == 2 else max(map(abs, expected))
        assert scale > 0
        torch.testing.assert_close(found, expected, rtol=0, atol=RELATIVE * scale)

    assert parameters(net) == case["parameters"]
    close(logits.flatten().tolist()[: len(case["logits"])], case["logits"])
    close(fingerprint(x.grad), case["grad_x"])
    for p, expected in zip(in_data_order(net, own), case["grads"], strict=True):
        close(fingerprint(p.grad), expected)
    # The published code updates them a second time in its recomputation: these are from before its backward.
    statistics = [b for b in in_data_order(net, dict(net.named_buffers())) if b.dim()]
    for b, expected in zip(statistics, case["statistics"], strict=True):
        close(fingerprint(b), expected)


def test_a_published_checkpoint_loads_whatever_its_names_are() -> None:
    net = models.create("revsresnet37", width=0.125)
    state = {f"their.{i}": t + 1 for i, t in enumerate(in_data_order(net, net.state_dict()))}
    models.load_published(net, state)
    for mine, theirs in zip(in_data_order(net, net.state_dict()), state.values(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(BadInput, match="tensors: the network has"):
        models.load_published(models.create("revsresnet21", width=0.125), state)
    with pytest.raises(BadInput, match=r"their\.0 has shape"):
        models.load_published(models.create("revsresnet37", width=0.25), state)


def outputs_and_gradients(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    x = x.clone().requires_grad_()
    logits = net(x)
    (logits * noise(tuple(logits.shape), 8)).sum().backward()
    return logits.detach(), x.grad, {k: p.grad for k, p in net.named_parameters()}


def largest_relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[k] - e).norm() / e.norm()) for k, e in expected.items())


@pytest.mark.parametrize("blocks", [(1, 1, 1, 1), (2, 3, 1, 2)])
@pytest.mark.parametrize("neuron", ["if", "lif"])
def test_fused_and_unfused_are_one_function(blocks: tuple[int, ...], neuron: str) -> None:
    options = {"width": 0.1, "blocks": blocks, "num_classes": 5, "neuron": neuron}
    unfused = models.create("pararevsnn37", **options).double()
    fused = models.create("pararevsnn37", form="fused", **options).double()
    own = dict(unfused.named_parameters())
    fill([own.get(k, v) for k, v in unfused.state_dict().items()])
    fused.load_state_dict(models.fuse(unfused.state_dict()))
    x = noise((3, 3, 16, 16), 7)
    y, dx, grads = outputs_and_gradients(unfused, x)
    y_fused, dx_fused, grads_fused = outputs_and_gradients(fused, x)
    torch.testing.assert_close(y_fused, y, rtol=1e-12, atol=1e-12 * float(y.abs().max()))
    torch.testing.assert_close(dx_fused, dx, rtol=0, atol=1e-12 * float(dx.abs().max()))
    assert largest_relative(grads_fused, models.fuse(grads)) < 1e-12
    statistics = models.fuse(unfused.state_dict())
    for k, v in fused.state_dict().items():
        torch.testing.assert_close(v, statistics[k], rtol=1e-12, atol=1e-12)


def test_fusing_and_unfusing_a_state_gives_it_back() -> None:
    state = models.create("pararevsnn37", width=0.125, blocks=(1, 2, 3, 4)).state_dict()
    again = models.unfuse(models.fuse(state))
    assert again.keys() == state.keys()
    assert all(torch.equal(again[k], v) for k, v in state.items())


def test_states_of_the_wrong_form_are_refused() -> None:
    options = {"width": 0.125, "num_classes": 5}
    with pytest.raises(BadInput, match="no unfused equal"):
        models.unfuse(models.create("pararevsnn37", form="merged", **options).state_dict())
    with pytest.raises(BadInput, match="no reversible pairs"):
        models.fuse(models.create("msresnet18", **options).state_dict())
    with pytest.raises(BadInput, match="no fused stages"):
        models.unfuse(models.create("pararevsnn37", **options).state_dict())
    trained_apart = models.create("pararevsnn24_dvs", **options)
    trained_apart.stages[1].blocks[0].g.sn1.w.data += 1
    with pytest.raises(BadInput, match=r"stages\.1\.blocks\.0\.g\.sn1\.w and .* differ"):
        models.fuse(trained_apart.state_dict())


REVERSIBLE = [(n, f) for n in ("pararevsnn37", "pararevsnn24_dvs") for f in models.FORMS] + [
    ("revsresnet37", "unfused"),
    ("revsresnet24_dvs", "unfused"),
]


@pytest.mark.parametrize(("name", "form"), REVERSIBLE)
def test_recomputing_networks_find_the_gradients_that_autograd_finds(name: str, form: Any) -> None:
    options = {"width": 0.05, "num_classes": 5, "form": form}
    spec = models.spec(name)
    net, stored = (models.create(name, store=store, **options).double() for store in (False, True))
    stored.load_state_dict(net.state_dict())
    x = noise((3, 2, *spec.input_shape[:1], 16, 16) if spec.event else (2, 3, 16, 16), 7)
    y, dx, grads = outputs_and_gradients(net, x)
    y_stored, dx_stored, grads_stored = outputs_and_gradients(stored, x)
    assert torch.equal(y, y_stored)
    torch.testing.assert_close(dx, dx_stored, rtol=0, atol=1e-12 * float(dx_stored.abs().max()))
    for k, g in grads_stored.items():
        torch.testing.assert_close(grads[k], g, rtol=0, atol=1e-12 * float(g.abs().max()) + 1e-300)
    for k, v in stored.state_dict().items():
        assert torch.equal(net.state_dict()[k], v), k


def saved_bytes(net: nn.Module, x: Tensor) -> int:
    """Bytes of the storages that autograd keeps from the forward, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    saved: dict[int, int] = {}
    alive: list[Tensor] = []  # or a later storage could stand where a freed one stood

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        net(x)
    return sum(saved.values())


def test_saved_bytes_do_not_depend_on_the_depth_of_a_reversible_network() -> None:
    x = torch.zeros(2, 3, 8, 8)

    def saved(name: str, **options: Any) -> int:
        return saved_bytes(models.create(name, width=1 / 16, **options), x)

    assert saved("revsresnet21") == saved("revsresnet37") == saved("revsresnet109") > 0
    assert saved("pararevsnn21") == saved("pararevsnn37") == saved("pararevsnn165") == saved("revsresnet21")
    assert saved("pararevsnn165", form="fused") == saved("pararevsnn165", form="merged") == saved("revsresnet21")
    assert saved("msresnet18") < saved("msresnet34")
    assert saved("revsresnet21") < saved("revsresnet21", store=True) < saved("revsresnet37", store=True)


class Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ops += 1
        return func(*args, **(kwargs or {}))


def test_a_training_step_of_165_layers_takes_less_than_20_000_operations() -> None:
    net = models.create("pararevsnn165", width=1 / 64)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    with Count() as count:
        net(torch.zeros(2, 3, 8, 8)).sum().backward()
        optimizer.step()
    assert 10_000 < count.ops < 20_000


@pytest.mark.parametrize("name", [s.name for s in residual.SPECS if s.depth <= 37])
def test_images_and_frames_both_give_one_row_of_logits_per_sample(name: str) -> None:
    net = models.create(name, width=0.05, num_classes=7, timesteps=2, in_channels=4)
    with torch.no_grad():
        image = noise((3, 4, 16, 16), 1).float()
        assert net(image).shape == (3, 7)
        assert net(image.expand(5, 3, 4, 16, 16)).shape == (3, 7)
        net.eval()
        torch.testing.assert_close(net(image), net(image.expand(2, 3, 4, 16, 16)))


@pytest.mark.parametrize("name", [s.name for s in residual.SPECS])
def test_a_spec_describes_the_network_that_is_made(name: str) -> None:
    spec = models.spec(name)
    with torch.device("meta"):
        net = models.create(name)
    stages = {"pararevsnn": 4, "revsresnet": 4, "msresnet": 2}[spec.family]
    extra = 2 if spec.family == "msresnet" else 1 + len(spec.blocks)
    assert spec.depth == extra + stages * sum(spec.blocks)
    assert net.timesteps == spec.timesteps
    assert net.stem.conv.in_channels == spec.input_shape[0]
    assert net.fc.out_features == spec.classes
    weights = [k for k, v in net.named_parameters() if v.dim() == 4]
    assert len(weights) == 1 + (len(spec.blocks) - 1) + stages * sum(spec.blocks)  # stem, downsamplings, units
    assert all("\n" not in line for line in spec.assumptions)
    assert bool(spec.assumptions) == (spec.family == "pararevsnn")


def test_module_paths_are_those_that_reports_name() -> None:
    paths = dict(models.create("pararevsnn165", width=0.02).named_modules())
    assert isinstance(paths["stages.0.blocks.3.f.conv1"], nn.Conv2d)
    assert isinstance(paths["stages.3.blocks.9.g.sn2"], models.IF)
    fused = dict(models.create("pararevsnn165", width=0.02, form="fused").named_modules())
    assert isinstance(fused["stages.0.merged.8.conv2"], nn.Conv2d)


def test_one_seed_gives_one_network() -> None:
    torch.manual_seed(1)
    a = models.create("pararevsnn21", width=0.1).state_dict()
    torch.manual_seed(1)
    b = models.create("pararevsnn21", width=0.1).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_neuron_options_reach_every_neuron() -> None:
    net = models.create(
        "revsresnet21", width=0.1, neuron="plif", tau=3.0, v_threshold=0.5, v_reset=None, surrogate="triangle"
    )
    neurons = [m for m in net.modules() if getattr(m, "is_spiking_neuron", False)]
    assert len(neurons) == 4 * 4 + 3 + 1
    for n in neurons:
        assert (n.v_threshold, n.v_reset, n.surrogate) == (0.5, None, models.Triangle())
        assert 1 / n.w.sigmoid().item() == pytest.approx(3.0)


def test_an_unknown_network_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean pararevsnn37"):
        models.create("pararevsn37")
    with pytest.raises(UnknownName, match="revsresnet37"):
        models.spec("revresnet37")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"timesteps": 0}, "timesteps is 0"),
        ({"timesteps": 2.5}, "timesteps is 2.5"),
        ({"timesteps": True}, "timesteps is True"),
        ({"width": 0}, "width is 0"),
        ({"width": float("nan")}, "width is nan"),
        ({"width": "wide"}, "width is 'wide'"),
        ({"blocks": (1, 2)}, "one number for each of 4 stages"),
        ({"blocks": (1, 0, 1, 1)}, "blocks is 0"),
        ({"in_channels": -1}, "in_channels is -1"),
        ({"form": "fused"}, "has no fused form"),
        ({"tau": 0.5, "neuron": "lif"}, "time constant is 0.5"),
        ({"v_threshold": -1.0}, "threshold is -1.0"),
        ({"widht": 1.0}, f"no option 'widht': known: {', '.join(OPTIONS)}"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        models.create("revsresnet21", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"form": "merge"}, {"neuron": "izhikevich"}, {"surrogate": "atna"}])
def test_an_unknown_choice_is_refused_with_what_there_is(options: dict[str, Any]) -> None:
    with pytest.raises(UnknownName, match=r"merged|if|atan"):
        models.create("pararevsnn21", **options)


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 1, 32, 32), (1, 1, 1, 3, 8, 8), (0, 3, 8, 8), (0, 2, 3, 8, 8)])
def test_an_input_of_the_wrong_shape_is_refused_in_one_line(shape: tuple[int, ...]) -> None:
    net = models.create("revsresnet21", width=0.05)
    with pytest.raises(BadInput, match=r"must be \[B, 3, H, W\] or \[T, B, 3, H, W\]"):
        net(torch.zeros(shape))
