"""The residual networks of the zoo: ParaRevSNN, RevSNN, MS-ResNet.

Depth counts convolutions and the classifier on the longest path: 5 + 4·Σn for four reversible stages of n pairs,
4 + 4·Σn for three, 2 + 2·Σn for MS-ResNet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

from torch import nn

from pararev_hw.errors import BadInput, unknown_name
from pararev_hw.models.networks import (
    BasicBlock,
    Downsample,
    Form,
    SpikingResNet,
    Stem,
    initialise,
    reversible_stage,
)
from pararev_hw.models.reversible import Coupling
from pararev_hw.models.spec import NeuronSettings, Spec, whole
from pararev_hw.models.surrogates import surrogate

Family = Literal["pararevsnn", "revsresnet", "msresnet"]
FORMS: tuple[Form, ...] = ("unfused", "merged", "fused")


_CIFAR = (3, 32, 32)
_DVS = (2, 128, 128)
_STREAMS = (64, 128, 256, 448)
_IF = NeuronSettings("if", surrogate("atan"))
_LIF = NeuronSettings("lif", surrogate("sigmoid"), tau=1.5)  # the published event networks keep SpikingJelly's default
_PLIF = NeuronSettings("plif", surrogate("sigmoid"), tau=1.5)

_NO_CODE = "ParaRevSNN has no public code: channels, time steps, neuron settings are RevSNN's (arXiv 2312.07922)"
_STRIDE = "the stem has stride 1 on 32×32 images, as in RevSNN: the paper's text speaks of stride 2"
_PLIF_TAU = "the paper names parametric LIF neurons, not their start: τ = 1.5 and sigmoid surrogate, as in RevSNN"


def _pairs(*blocks: int) -> str:
    return f"pairs per stage {list(blocks)}: the paper gives the depth, not its division among stages"


def _static(name: str, family: Family, depth: int, blocks: tuple[int, ...], *assumptions: str) -> Spec:
    channels = (64, 128, 256, 512) if family == "msresnet" else _STREAMS
    return Spec(name, family, depth, blocks, channels, 4, _CIFAR, "image", 100, _IF, assumptions)


def _para(depth: int, *blocks: int) -> Spec:
    is_published = depth == 21
    assumptions = (_NO_CODE, _STRIDE) if is_published else (_NO_CODE, _STRIDE, _pairs(*blocks))
    return _static(f"pararevsnn{depth}", "pararevsnn", depth, blocks, *assumptions)


SPECS: tuple[Spec, ...] = (
        _static("msresnet18", "msresnet", 18, (2, 2, 2, 2)),
        _static("msresnet34", "msresnet", 34, (3, 4, 6, 3)),
        Spec("msresnet20_dvs", "msresnet", 20, (3, 3, 3), (16, 32, 64), 10, _DVS, "events", 10, _LIF),
        _para(21, 1, 1, 1, 1),
        Spec(
            "pararevsnn24_dvs", "pararevsnn", 24, (1, 2, 2), (16, 32, 48), 10, _DVS, "events", 10, _PLIF,
            (_NO_CODE, _PLIF_TAU),
        ),
        _para(37, 2, 2, 2, 2),
        _para(69, 4, 4, 4, 4),
        _para(117, 7, 7, 7, 7),
        _para(165, 10, 10, 10, 10),
        _static("revsresnet21", "revsresnet", 21, (1, 1, 1, 1)),
        Spec("revsresnet24_dvs", "revsresnet", 24, (1, 2, 2), (16, 32, 48), 10, _DVS, "events", 10, _LIF),
        _static("revsresnet37", "revsresnet", 37, (1, 2, 3, 2)),
        _static("revsresnet109", "revsresnet", 109, (2, 4, 16, 4)),
)  # fmt: skip


def create(
    spec: Spec,
    *,
    num_classes: int,
    timesteps: int,
    width: float,
    form: Form = "unfused",
    store: bool = False,
    **options: Any,
) -> SpikingResNet:
    """The network of that description; see `pararev_hw.models.create`."""
    network_spec = _customised(spec, options)
    if form not in FORMS:
        raise unknown_name("form", str(form), FORMS)
    if form != "unfused" and network_spec.family != "pararevsnn":
        raise BadInput(f"{spec.name} has no {form} form: only ParaRevSNN networks have")
    channels = tuple(max(1, round(c * width)) for c in network_spec.channels)
    network_spec = replace(network_spec, channels=channels, timesteps=timesteps, classes=num_classes)
    net = _ms_resnet(network_spec) if network_spec.family == "msresnet" else _reversible(network_spec, form, store)
    initialise(net)
    return net


def _reversible(spec: Spec, form: Form, store: bool) -> SpikingResNet:
    neuron, c = spec.neuron.build, spec.channels
    coupling: Coupling = "pararev" if spec.family == "pararevsnn" else "revnet"

    def pool() -> nn.Module:
        return nn.AvgPool2d(3, stride=2, padding=1)

    return SpikingResNet(
        _stem(spec, 2 * c[0], pool),
        [
            reversible_stage(neuron, k, n, coupling=coupling, form=form, store=store)
            for k, n in zip(c, spec.blocks, strict=True)
        ],
        [Downsample(neuron, 2 * a, 2 * b, pool=pool()) for a, b in pairwise(c)],
        neuron(),
        2 * c[-1],
        timesteps=spec.timesteps,
        num_classes=spec.classes,
    )


def _ms_resnet(spec: Spec) -> SpikingResNet:
    neuron, c = spec.neuron.build, spec.channels
    stages = []
    for i, (k, n) in enumerate(zip(c, spec.blocks, strict=True)):
        entry = BasicBlock(neuron, c[max(i - 1, 0)], k, stride=1 if i == 0 else 2)
        stages.append(nn.Sequential(entry, *(BasicBlock(neuron, k, k, stride=1) for _ in range(n - 1))))
    stem = _stem(spec, c[0], lambda: nn.MaxPool2d(3, stride=2, padding=1))
    return SpikingResNet(stem, stages, [], neuron(), c[-1], timesteps=spec.timesteps, num_classes=spec.classes)


def _stem(spec: Spec, channels: int, pool: Callable[[], nn.Module]) -> Stem:
    stride = 2 if spec.event else 1
    return Stem(spec.input_shape[0], channels, stride=stride, pool=pool() if spec.event else None)


def _customised(network_spec: Spec, options: Mapping[str, Any]) -> Spec:
    neuron = network_spec.neuron
    for key, value in options.items():
        match key:
            case "blocks":
                if not isinstance(value, Sequence) or len(value) != len(network_spec.blocks):
                    raise BadInput(
                        f"blocks is {value!r}: it must give one number for each of {len(network_spec.blocks)} stages"
                    )
                network_spec = replace(network_spec, blocks=tuple(whole("blocks", n) for n in value))
            case "in_channels":
                network_spec = replace(
                    network_spec, input_shape=(whole("in_channels", value), *network_spec.input_shape[1:])
                )
            case "neuron":
                neuron = replace(neuron, kind=value)
            case "surrogate":
                neuron = replace(neuron, surrogate=surrogate(value) if isinstance(value, str) else value)
            case "tau" | "v_threshold" | "v_reset" | "detach_reset":
                neuron = replace(neuron, **{key: value})
            case _:
                raise BadInput(f"{network_spec.name} has no option {key!r}: known: {', '.join(OPTIONS)}")
    return replace(network_spec, neuron=neuron)


OPTIONS = (
    "blocks", "detach_reset", "form", "in_channels", "neuron", "num_classes", "store", "surrogate", "tau", "timesteps",
    "v_reset", "v_threshold", "width",
)  # fmt: skip
