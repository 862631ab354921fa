"""Makes neuron_golden.json: spikes, states and gradients of SpikingJelly's multi-step neurons (torch backend, float64).

Made with torch 2.13.0 (CPU) and SpikingJelly 0.0.0.0.12 and 0.0.0.0.14, each installed with --no-deps:

    python tests/data/make_neuron_golden.py clock_driven        # where 0.0.0.0.12 is installed: writes the file
    python tests/data/make_neuron_golden.py activation_based    # where 0.0.0.0.14 is: checks it and signs it
"""

import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.helpers.deterministic_tensors import noise

SHAPE = (5, 2, 3)  # [T, B, features]
NODES = {"if": "IFNode", "lif": "LIFNode", "plif": "ParametricLIFNode"}
SURROGATES = {"atan": "ATan", "sigmoid": "Sigmoid", "triangle": "PiecewiseQuadratic"}


def settings() -> list[dict]:
    """All resets and ways to detach per kind of neuron, and all surrogates, without their full product."""
    found = []
    for kind in NODES:
        for decay_input in (None,) if kind == "if" else (True, False):
            for v_reset in (0.0, 0.25, None):
                for detach_reset in (True, False):
                    found.append((kind, decay_input, v_reset, detach_reset, "atan", 2.0, 1.0, False))
        decay = None if kind == "if" else True
        found.append((kind, decay, 0.0, True, "sigmoid", 4.0, 0.5, False))
        found.append((kind, decay, 0.0, True, "triangle", 1.0, 0.5, False))
        found.append((kind, decay, 0.0, True, "atan", 3.0, 1.0, True))
    names = ("kind", "decay_input", "v_reset", "detach_reset", "surrogate", "alpha", "v_threshold", "with_state")
    return [dict(zip(names, f, strict=True)) for f in found]


def run(api: str, case: dict) -> dict:
    neurons = importlib.import_module(f"spikingjelly.{api}.neuron")
    surrogates = importlib.import_module(f"spikingjelly.{api}.surrogate")
    options = {k: case[k] for k in ("v_threshold", "v_reset", "detach_reset")}
    options["surrogate_function"] = getattr(surrogates, SURROGATES[case["surrogate"]])(alpha=case["alpha"])
    if case["kind"] != "if":
        options["decay_input"] = case["decay_input"]
        options["tau" if case["kind"] == "lif" else "init_tau"] = 1.5
    name = NODES[case["kind"]]
    if api == "clock_driven":
        node = getattr(neurons, f"MultiStep{name}")(**options)
    else:
        node = getattr(neurons, name)(**options, step_mode="m")
    node = node.double()
    x = (1.5 * noise(SHAPE, 3) + 0.5).requires_grad_()
    v = (0.5 * noise(SHAPE[1:], 4)).requires_grad_()
    if case["with_state"]:
        node.v = v
    spikes = node(x)
    ((spikes * noise(SHAPE, 5)).sum() + (node.v * noise(SHAPE[1:], 6)).sum()).backward()
    return {
        **case,
        "spikes": spikes.detach().flatten().int().tolist(),
        "state": node.v.detach().flatten().tolist(),
        "grad_x": x.grad.flatten().tolist(),
        "grad_v": v.grad.flatten().tolist() if case["with_state"] else None,
        "grad_w": node.w.grad.item() if case["kind"] == "plif" else None,
    }


def agree(a, b) -> bool:
    """Equal, or numbers equal to 1e-13."""
    if isinstance(a, list):
        return all(agree(p, q) for p, q in zip(a, b, strict=True))
    return a == b or (isinstance(a, float) and abs(a - b) <= 1e-13 * max(1.0, abs(a)))


if __name__ == "__main__":
    api = sys.argv[1]
    path = Path(__file__).with_name("neuron_golden.json")
    source = f"SpikingJelly {version('spikingjelly')} {api}"
    cases = [run(api, case) for case in settings()]
    sources = [source]
    if path.exists():
        known = json.loads(path.read_text())
        for ours, theirs in zip(cases, known["cases"], strict=True):
            for key in ours:
                assert agree(ours[key], theirs[key]), f"{source} differs in {key} of {theirs}"
        cases, sources = known["cases"], sorted({*known["sources"], source})
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text(f'{{"sources": {json.dumps(sources)},\n"cases": [\n{lines}\n]}}\n')
