"""What a user names: zoo names, files, modules, and everything that may be wrong with them."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import pararev_hw as ph
from pararev_hw import models
from pararev_hw.errors import BadFile, BadInput, UnknownName
from pararev_hw.importers.targets import AS_WRITTEN, resolve
from pararev_hw.trace_options import TraceOptions
from tests.helpers.command_line import run

FACTORIES = """
import dataclasses
import torch
from torch import nn

def net(width=1): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
def with_inputs(batch=5): return net(), torch.zeros(batch, 3, 8, 8)
def fixed(): return net(), (torch.zeros(2, 3, 8, 8),)
def everything(**options): return Told(options), torch.zeros(options["batch"], 4)
def sized(num_classes=2): return nn.Linear(4, num_classes), torch.zeros(2, 4)
def seeded(): return nn.Linear(4, 4), torch.zeros(2, 4)

class Told(nn.Linear):
    def __init__(self, options):
        super().__init__(4, 4)
        self.options = options

@dataclasses.dataclass
class Needs:  # a dataclass looks its module up while it is made
    size: int = 3

def raises(): raise RuntimeError("no weights\\nat all")
def exits(): raise SystemExit("bye")
def number(): return 42
def nothing(): return None
def words(): return net(), "words"
def needs(x): return net()
def empty(): return net(), torch.zeros(0, 3, 8, 8)
def scalar(): return net(), torch.zeros(())
constant = 5
made = net()

def deep(): return net(), torch.zeros(2, 3)
def channels(): return net(), torch.zeros(2, 5, 8, 8)

class Control(nn.Linear):
    def forward(self, x):
        x = super().forward(x)
        return x if x.sum() > 0 else -x

def control(): return Control(4, 4), torch.zeros(2, 4)

def prints():
    print("hello from the factory")
    return nn.Linear(4, 4), torch.zeros(2, 4)
"""


def line(text: str) -> str:
    """Where the factories' file holds that text, as messages write it."""
    return f"net.py:{next(k for k, have in enumerate(FACTORIES.splitlines(), 1) if text in have)}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder with a file of factories in it; modules that a test imports are forgotten."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(FACTORIES)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


# ---- what is found


def test_a_zoo_network_comes_without_memory_and_is_made_real_when_asked() -> None:
    found = resolve("pararevsnn21", TraceOptions(batch=3, timesteps=2, num_classes=7, width=0.0625, seed=5))
    assert all(p.device.type == "meta" for p in found.network.parameters())
    assert [tuple(x.shape) for x in found.inputs] == [(3, 3, 32, 32)]
    assert (found.batch, found.timesteps, found.real_inputs, found.event) == (3, 2, False, False)
    real, again = found.realise(), found.realise()
    assert real(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    assert all(torch.equal(a, b) for a, b in zip(real.parameters(), again.parameters(), strict=True))
    other = resolve("pararevsnn21", TraceOptions(width=0.0625, num_classes=7, seed=6)).realise()
    assert not all(torch.equal(a, b) for a, b in zip(real.parameters(), other.parameters(), strict=True))


def test_an_event_network_takes_frames() -> None:
    found = resolve("pararevsnn24_dvs", TraceOptions(batch=3, timesteps=4))
    assert [tuple(x.shape) for x in found.inputs] == [(4, 3, 2, 128, 128)]
    assert found.event


def test_another_number_of_channels_is_the_networks_too() -> None:
    found = resolve("pararevsnn21", TraceOptions(batch=2, width=0.0625, input_shape=(1, 28, 28)))
    assert found.realise()(torch.rand(2, 1, 28, 28)).shape[0] == 2


def test_every_zoo_name_resolves_and_says_what_it_assumes() -> None:
    for name in models.names():
        found = resolve(name, TraceOptions(width=0.0625))
        assert found.name == name
        blocks = models.spec(name).blocks
        assert any("blocks per stage" in text for text in found.assumptions) == bool(blocks)


def test_a_factory_gives_a_network_and_its_inputs_or_a_shape_is_named() -> None:
    own = resolve("net.py:with_inputs", TraceOptions())
    assert (own.batch, own.real_inputs, own.name) == (5, True, "net:with_inputs")
    assert resolve("net.py:fixed", TraceOptions()).batch == 2
    assert resolve("net.py:with_inputs", TraceOptions(batch=7)).inputs[0].shape[0] == 7
    shaped = resolve("net.py:net", TraceOptions(batch=4, input_shape=(3, 8, 8)))
    assert (tuple(shaped.inputs[0].shape), shaped.real_inputs) == ((4, 3, 8, 8), False)


def test_a_network_in_place_of_a_factory_is_taken() -> None:
    network = resolve("net.py:made", TraceOptions(input_shape=(3, 8, 8))).realise()
    assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 2)


def test_a_factory_is_handed_what_the_user_set_and_nothing_else() -> None:
    told = resolve("net.py:everything", TraceOptions(batch=2, width=0.5, form="merged")).network
    assert told.options == {"batch": 2, "width": 0.5, "form": "merged"}
    assert resolve("net.py:sized", TraceOptions(num_classes=9)).network.out_features == 9


def test_the_seed_makes_the_weights() -> None:
    a, b, c = (resolve("net.py:seeded", TraceOptions(seed=s)).network.weight for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_module_is_found_from_the_working_folder(folder: Path) -> None:
    (folder / "package").mkdir()
    (folder / "package" / "inner.py").write_text(FACTORIES)
    assert resolve("package.inner:fixed", TraceOptions()).name == "package.inner:fixed"


def test_a_users_own_models_package_is_the_one_that_is_imported(folder: Path) -> None:
    user = folder / "project"
    (user / "models").mkdir(parents=True)
    (user / "models" / "__init__.py").write_text("")
    (user / "models" / "net.py").write_text("from torch import nn\ndef build(): return nn.Linear(4, 3)\n")
    (user / "train.py").write_text(
        "import torch\nfrom models.net import build\ndef make(): return build(), torch.zeros(2, 4)\n"
    )
    assert resolve("project/train.py:make", TraceOptions()).network.out_features == 3
    assert sys.modules["pararev_hw.models"] is models


def test_two_folders_with_modules_of_one_name_are_kept_apart(folder: Path) -> None:
    for name, size in (("old", 3), ("new", 5)):
        (folder / name).mkdir()
        (folder / name / "blocks.py").write_text(f"SIZE = {size}\n")
        (folder / name / "net.py").write_text(
            "import torch\nfrom blocks import SIZE\ndef make(): return torch.nn.Linear(4, SIZE), torch.zeros(2, 4)\n"
        )
    sizes = [resolve(f"{name}/net.py:make", TraceOptions()).network.out_features for name in ("old", "new", "old")]
    assert sizes == [3, 5, 3]


def test_a_file_named_like_a_module_of_python_takes_nothing_away(folder: Path) -> None:
    (folder / "random.py").write_text(FACTORIES)
    path = list(sys.path)
    assert resolve("random.py:fixed", TraceOptions()).batch == 2
    assert sys.modules["random"] is random
    assert sys.path == path


# ---- what is refused


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("net.py:raises", TraceOptions(), f"RuntimeError ({line('def raises')}): no weights"),
        ("net.py:exits", TraceOptions(), f"SystemExit ({line('def exits')}): bye"),
        ("net.py:number", TraceOptions(), "gave an int"),
        ("net.py:nothing", TraceOptions(), "gave nothing"),
        ("net.py:words", TraceOptions(), "not a str"),
        ("net.py:needs", TraceOptions(), "missing 1 required"),
        ("net.py:empty", TraceOptions(), "batch of at least 1"),
        ("net.py:scalar", TraceOptions(), "batch of at least 1"),
        ("net.py:constant", TraceOptions(), "is an int"),
        ("net.py:net", TraceOptions(), "--input-shape"),
        ("net.py:fixed", TraceOptions(input_shape=(3, 8, 8)), "leave --input-shape out"),
        ("net.py:fixed", TraceOptions(batch=3), "parameter `batch`"),
        ("net.py:fixed", TraceOptions(timesteps=3), "takes no timesteps"),
        ("net.py:fixed", TraceOptions(form="merged"), "takes no form"),
        ("net.py", TraceOptions(), "net.py:make_net"),
        ("net.py:", TraceOptions(), "as in net.py:make_net"),
        (":make", TraceOptions(), "as in net.py:make_net"),
        (".:make", TraceOptions(), "importable name"),
        ("net.py:a:b", TraceOptions(), "importable name"),
        ("graph.json", TraceOptions(), "`schedule` and `report`"),
        ("revsresnet21", TraceOptions(form="merged"), "no merged form"),
        ("pararevsnn21", TraceOptions(input_shape=(3, 32)), "C,H,W"),
        ("pararevsnn21", TraceOptions(batch=10**12), "more than any device holds"),
    ],
)
def test_a_target_that_cannot_be_is_refused(target: str, options: TraceOptions, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        resolve(target, options)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("pararevsnn36", "pararevsnn37"),
        ("revsnet37", "revsresnet37"),
        ("nothing like it", "known: bnn_resnet18"),
        ("net.py:with_input", "did you mean with_inputs"),
        ("no.such.module:make", "no module is called 'no.such.module'"),
    ],
)
def test_an_unknown_name_is_answered_with_known_ones(target: str, said: str) -> None:
    with pytest.raises(UnknownName) as refused:
        resolve(target, TraceOptions())
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"def make(:\n", "SyntaxError"),
        (b"\x00\xff", "SyntaxError"),
        (b"import not_a_module_of_mine\n", "broken.py:1"),
        (b"\n\nraise ValueError('while importing')\n", "broken.py:3"),
        (b"import sys\nsys.exit(0)\n", "SystemExit (broken.py:2)"),
    ],
)
def test_a_file_that_does_not_import_is_refused_with_its_line(folder: Path, content: bytes, said: str) -> None:
    (folder / "broken.py").write_bytes(content)
    with pytest.raises(BadInput) as refused:
        resolve("broken.py:make", TraceOptions())
    assert str(refused.value).startswith("broken.py: ")
    assert said in str(refused.value)


def test_the_known_factories_of_a_file_are_those_that_it_defines(tmp_path: Path) -> None:
    file = tmp_path / "own_nets.py"
    file.write_text(
        "from torch.nn import Linear\nfrom torch.utils.checkpoint import checkpoint\n"
        "def make(): pass\nnet = Linear(3, 4)\n"
    )
    with pytest.raises(UnknownName, match=r"factory in .* is called 'zzz': known: make, net$"):
        resolve(f"{file}:zzz", TraceOptions())
    file.write_text("from torch.nn import Linear\n")
    with pytest.raises(UnknownName, match=r"known: Linear$"):
        resolve(f"{file}:zzz", TraceOptions())


def test_a_missing_file_is_a_bad_file() -> None:
    with pytest.raises(BadFile, match="there is no such file"):
        resolve("missing.py:make", TraceOptions())


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch", 0), ("timesteps", -1), ("num_classes", 0), ("width", 0.0), ("width", float("nan")), ("seed", -1)],
)
def test_an_option_that_no_network_has_is_refused_where_it_is_made(name: str, value: float) -> None:
    with pytest.raises(BadInput, match=f"{name} is"):
        TraceOptions(**{name: value})


# ---- through the command line


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("deep", "net:deep"),
        ("channels", "in module '0'"),
        ("raises", line("def raises")),
    ],
)
def test_a_network_that_cannot_be_traced_is_refused_with_its_place(factory: str, said: str) -> None:
    ran = run("trace", f"net.py:{factory}", "-o", "g.json")
    assert ran.status == 2
    assert said in ran.line
    assert not Path("g.json").exists()


def test_control_flow_by_values_goes_as_on_the_factorys_inputs_and_the_answer_says_where() -> None:
    ran = run("trace", "net.py:control", "-o", "g.json")
    assert ran.status == 0, ran.err
    (sentence,) = [a for a in json.loads(Path("g.json").read_text())["assumptions"] if "asks for values" in a]
    assert line("x.sum() > 0") in sentence


def test_what_a_network_prints_does_not_reach_standard_output() -> None:
    ran = run("trace", "net.py:prints", "--json")
    assert ran.status == 0
    assert json.loads(ran.out)["model"] == "net:prints"
    assert "hello from the factory" in ran.err


def test_a_width_beyond_the_limit_is_refused() -> None:
    with pytest.raises(BadInput, match="at most 1000"):
        TraceOptions(width=1e9)


@pytest.mark.parametrize("name", ["batch", "timesteps", "num_classes"])
def test_a_number_beyond_what_torch_holds_is_refused_in_a_line(name: str) -> None:
    with pytest.raises(BadInput, match=rf"{name} is 1e\+30: more than any device holds"):
        TraceOptions(**{name: 10**30})  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=rf"{name} is a number of \d+ bits: more than any device holds"):
        TraceOptions(**{name: 10**5000})  # type: ignore[arg-type]  # neither a float nor printable


LOADS_THE_COMPILER = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # which torch warns of itself
COMPILED = """
import torch
from torch import nn

class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = torch.compile(nn.Sequential(nn.Linear(4, 8), nn.ReLU())), nn.Linear(8, 10)
    def forward(self, x): return self.head(self.inner(x))

def whole(): return torch.compile(nn.Sequential(nn.Linear(4, 10))), torch.zeros(2, 4)
def part(): return Outer(), torch.zeros(2, 4)
def in_place():
    net = nn.Sequential(nn.Linear(4, 10))
    net.compile()
    return net, torch.zeros(2, 4)
def plain(): return nn.Sequential(nn.Linear(4, 10)), torch.zeros(2, 4)
"""
COMPILED_METHOD = """
import torch
from torch import nn
class Net(nn.Linear):
    @torch.compile
    def forward(self, x): return super().forward(x)
def net(): return Net(4, 10), torch.zeros(2, 4)
"""
COMPILED_FUNCTION = """
import torch
from torch import nn
@torch.compile
def swish(x): return x * torch.sigmoid(x)
class Net(nn.Linear):
    def forward(self, x): return swish(super().forward(x))
def net(): return Net(4, 10), torch.zeros(2, 4)
"""


@LOADS_THE_COMPILER
@pytest.mark.parametrize("source", [COMPILED_METHOD, COMPILED_FUNCTION])
def test_compiled_functions_run_as_they_were_written_and_that_is_told(source: str, tmp_path: Path) -> None:
    (tmp_path / "compiled.py").write_text(source)
    try:
        target = resolve(f"{tmp_path / 'compiled.py'}:net", TraceOptions())
    finally:
        torch.compiler.set_stance("default")
    assert AS_WRITTEN in target.assumptions


@LOADS_THE_COMPILER
@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("whole", ["", "0"]),
        ("part", ["", "inner", "inner.0", "inner.1", "head"]),
        ("in_place", ["", "0"]),
        ("plain", ["", "0"]),
    ],
)
def test_what_is_compiled_is_taken_as_it_was_written(name: str, paths: list[str], tmp_path: Path) -> None:
    (tmp_path / "compiled.py").write_text(COMPILED)
    try:
        target = resolve(f"{tmp_path / 'compiled.py'}:{name}", TraceOptions())
    finally:
        torch.compiler.set_stance("default")
    assert [path for path, _ in target.network.named_modules()] == paths
    assert target.network._compiled_call_impl is None
    assert [a for a in target.assumptions if "torch.compile" in a] == ([] if name == "plain" else [AS_WRITTEN])
    assert target.realise()(target.inputs[0]).shape == (2, 10)


@LOADS_THE_COMPILER
def test_a_compiled_network_at_hand_is_traced_by_its_own_names_and_left_as_it_is() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 10))
    compiled = torch.compile(net)
    graph = ph.trace(compiled, torch.zeros(2, 4))
    assert [m.path for m in graph.modules] == ["", "0"]
    assert AS_WRITTEN in graph.assumptions
    assert type(compiled).__name__ == "OptimizedModule" and compiled._orig_mod is net


def test_a_factory_may_give_its_inputs_as_a_dataclass(tmp_path: Path) -> None:
    (tmp_path / "fields.py").write_text(
        """
import dataclasses
import torch
from torch import nn

@dataclasses.dataclass
class Batch:
    image: torch.Tensor
    mask: torch.Tensor
    scale: float = 2.0

class Net(nn.Linear):
    def forward(self, batch): return batch.scale * super().forward(batch.image.masked_fill(batch.mask, 0.0))

def make(): return Net(4, 10), Batch(torch.ones(2, 4), torch.zeros(2, 4, dtype=torch.bool))
"""
    )
    target = resolve(f"{tmp_path / 'fields.py'}:make", TraceOptions())
    assert [tuple(x.shape) for x in target.inputs] == [(2, 4), (2, 4)]
    net = target.network
    expected = 2.0 * torch.nn.functional.linear(target.inputs[0], net.weight, net.bias)
    torch.testing.assert_close(net(*target.inputs), expected)


def test_an_error_in_backward_names_no_line_of_the_tracer() -> None:
    class Overwritten(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x).exp()
            y += 1.0  # exp's gradient reads what it gave
            return y

    with pytest.raises(BadInput, match="Overwritten: RuntimeError while it was traced: one of the variables needed"):
        ph.trace(Overwritten(4, 10), torch.zeros(2, 4))
