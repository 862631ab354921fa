import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pararev_hw.errors import BadInput, Diverged, UnknownName
from pararev_hw.training.data import Dataset, digits
from pararev_hw.training.training import Epoch, TrainingSettings, evaluate, train


class Tiny(nn.Module):
    """One convolution with batch statistics and dropout: enough to have every kind of state."""

    def __init__(self, classes: int = 10, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten())
            self.head = nn.LazyLinear(classes)
            self.head(self.body(torch.zeros(2, 1, 8, 8)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@pytest.fixture(scope="module")
def small() -> Dataset:
    return digits(8, 1)


def fit(data: Dataset, model: nn.Module | None = None, **options: object):  # type: ignore[no-untyped-def]
    model = Tiny() if model is None else model
    outside = {name: options.pop(name) for name in ("device", "progress") if name in options}
    settings = TrainingSettings(**({"epochs": 2, "batch": 64, "lr": 0.05} | options))  # type: ignore[arg-type]
    return train(model, data, settings, **outside), model  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adamw", "lr": 1e-3}])
def test_training_on_digits_learns_them(small: Dataset, settings: dict[str, object]) -> None:
    model = Tiny()
    before = evaluate(model, small.test_x, small.test_y)
    run, _ = fit(small, model, epochs=5, **settings)
    assert before < 0.3
    assert run.test_accuracy > 0.9
    assert run.epochs[-1].loss < 0.5 * run.epochs[0].loss
    assert run.test_accuracy == evaluate(model, small.test_x, small.test_y)


def test_the_same_seed_gives_the_same_run_bit_for_bit(small: Dataset) -> None:
    (a, first), (b, second) = fit(small, seed=3), fit(small, seed=3)
    assert a == b
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))
    assert fit(small, seed=4)[0].epochs != a.epochs


def test_the_seed_alone_sets_an_order_that_changes_with_the_epoch() -> None:
    fed: list[float] = []

    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                fed.extend(x.flatten().tolist())
            return self.head(x.flatten(1))

    x, y = torch.arange(10.0).reshape(10, 1, 1, 1), torch.arange(10) % 2
    for seed in (0, 0, 1):
        train(Remembers(), Dataset(x, y, x, y, 2, "numbers"), TrainingSettings(epochs=2, batch=3, lr=1e-3, seed=seed))
    # 9 of the 10 samples an epoch: the incomplete batch is left out
    runs = [[tuple(fed[at : at + 9]) for at in (k, k + 9)] for k in (0, 18, 36)]
    assert len(fed) == 54
    assert all(len(set(epoch)) == 9 for run in runs for epoch in run)
    assert runs[0] == runs[1]
    assert len({*runs[0], *runs[2]}) == 4


def test_the_mode_a_model_comes_in_does_not_matter(small: Dataset) -> None:
    assert fit(small, Tiny().eval(), epochs=1)[0] == fit(small, Tiny(), epochs=1)[0]


def test_training_neither_reads_nor_moves_the_callers_random_state(small: Dataset) -> None:
    torch.manual_seed(11)
    a, _ = fit(small)
    drawn = torch.rand(3)
    torch.manual_seed(11)
    assert torch.equal(drawn, torch.rand(3))
    assert fit(small)[0] == a


def test_one_step_of_sgd_is_the_textbook_one(small: Dataset) -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(10, 64))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.weight.T

    n = len(small.train_x)
    run, model = fit(small, Linear(), epochs=2, batch=n, lr=0.1, momentum=0.9, weight_decay=0.01, schedule="constant")
    # gradient of the mean cross-entropy of a linear map: (softmax(Wx) - onehot(y))^T x / n
    x, y = small.train_x.flatten(1).double(), nn.functional.one_hot(small.train_y, 10).double()
    w, v = torch.zeros(10, 64, dtype=torch.float64), torch.zeros(10, 64, dtype=torch.float64)
    losses = []
    for _ in range(2):
        p = torch.softmax(x @ w.T, dim=1)
        losses.append(-(y * p.log()).sum().item() / n)
        v = 0.9 * v + (p - y).T @ x / n + 0.01 * w
        w = w - 0.1 * v
    weight = next(model.parameters()).detach().double()
    assert torch.allclose(weight, w, atol=1e-6)
    assert [e.loss for e in run.epochs] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.1] * 4),
        ("multistep", [0.1, 0.1, 0.01, 0.001]),  # RevSNN: by 10 at 100 and at 150 of 200 epochs
        ("cosine", [0.1, 0.08535534, 0.05, 0.01464466]),  # 0.05 (1 + cos(pi k / 4))
    ],
)
def test_the_learning_rate_follows_its_schedule(small: Dataset, schedule: str, expected: list[float]) -> None:
    run, _ = fit(small, epochs=4, batch=512, lr=0.1, schedule=schedule)
    assert [e.learning_rate for e in run.epochs] == pytest.approx(expected)
    assert [e.epoch for e in run.epochs] == [1, 2, 3, 4]


def test_progress_sees_every_epoch_as_it_is_recorded(small: Dataset) -> None:
    seen: list[Epoch] = []
    run, _ = fit(small, epochs=3, batch=256, progress=seen.append)
    assert tuple(seen) == run.epochs


@pytest.mark.parametrize(("shift", "loss"), [(float("nan"), "nan"), (float("-inf"), "inf")])
def test_a_loss_that_is_not_finite_names_epoch_and_step(small: Dataset, shift: float, loss: str) -> None:
    class Breaks(Tiny):
        steps = 0

        def forward(self, x: Tensor) -> Tensor:
            self.steps += self.training
            shifts = torch.tensor([0.0] + [shift if self.steps > 8 else 0.0] * 9)
            return super().forward(x) + shifts

    model = Breaks()
    with pytest.raises(Diverged, match=rf"the loss is {loss} in epoch 2, step 4 of 5: .*learning rate") as raised:
        fit(small, model, batch=256)
    assert isinstance(raised.value, ArithmeticError)
    assert not any(m.training for m in model.modules())


def test_training_ends_in_eval_mode_and_evaluation_changes_no_mode(small: Dataset) -> None:
    _, model = fit(small, epochs=1, batch=512)
    assert not any(m.training for m in model.modules())
    model.train()
    frozen = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    frozen.eval()
    modes = [m.training for m in model.modules()]
    statistics = frozen.running_mean.clone()
    evaluate(model, small.test_x, small.test_y)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(frozen.running_mean, statistics)


def test_accuracy_counts_and_does_not_depend_on_the_batch(small: Dataset) -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(torch.full((len(x),), 3), 10).float()

    share = (small.test_y == 3).sum().item() / len(small.test_y)
    for batch in (1, 7, 1000):
        assert evaluate(Constant(), small.test_x, small.test_y, batch=batch) == share


def test_event_frames_reach_the_model_with_time_first() -> None:
    shapes = set()

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            shapes.add(tuple(x.shape))
            return self.head(x.sum(dim=(0, 3, 4)))

    x = torch.zeros(12, 5, 2, 4, 4)
    y = torch.arange(12) % 2
    x[torch.arange(12), :, y] = 1.0  # the class is the polarity
    run = train(Counts(), Dataset(x, y, x[:4], y[:4], 2, "polarity"), TrainingSettings(epochs=3, batch=6))
    assert shapes == {(5, 6, 2, 4, 4), (5, 4, 2, 4, 4)}
    assert run.test_accuracy == 1.0


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"epochs": 0}, BadInput, "epochs is 0"),
        ({"batch": 0}, BadInput, "batch is 0"),
        ({"batch": 100_000}, BadInput, "number of training samples"),
        ({"lr": 0.0}, BadInput, "lr is 0"),
        ({"lr": float("nan")}, BadInput, "lr is nan"),
        ({"optimizer": "adam"}, UnknownName, "did you mean adamw"),
        ({"schedule": "cosin"}, UnknownName, "did you mean cosine"),
        ({"device": "gpu"}, BadInput, "device 'gpu'"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    small: Dataset, settings: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fit(small, **settings)


def test_a_model_without_parameters_cannot_be_trained(small: Dataset) -> None:
    with pytest.raises(BadInput, match="Identity has no parameter"):
        fit(small, nn.Identity())


@pytest.mark.parametrize("cut", [lambda x, y: (x[:0], y[:0]), lambda x, y: (x, y[:-1])])
def test_evaluation_needs_as_many_labels_as_inputs(
    small: Dataset, cut: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> None:
    with pytest.raises(BadInput, match="as many of each"):
        evaluate(Tiny(), *cut(small.test_x, small.test_y))


@pytest.fixture(scope="module")
def example() -> Callable[[list[str]], int]:
    return runpy.run_path(str(Path(__file__).parents[2] / "examples" / "train_digits.py"))["main"]  # type: ignore[no-any-return]


def test_the_example_trains_both_networks_and_compares_them(
    example: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--compare --size 8 --width 0.125 --timesteps 1 --blocks 2 1 1 1 --epochs 2 --seeds 5"
    assert example(options.split()) == 0
    header, para, rev, difference = capsys.readouterr().out.splitlines()[-4:]
    accuracies = []
    for line, title in ((para, "ParaRevSNN"), (rev, "RevSNN")):
        name, seed, average, _seconds = line.split()
        assert name == title
        assert seed == average
        accuracies.append(float(seed.rstrip("%")))
    assert header.split()[2:4] == ["seed", "5"]
    assert min(accuracies) > 40  # a guess is right in 10 of 100
    assert float(difference.split()[1]) == pytest.approx(accuracies[0] - accuracies[1], abs=0.02)


def test_the_example_answers_a_bad_setting_with_one_line(
    example: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert example(["--size", "4"]) == 2
    assert capsys.readouterr().err == "error: size is 4: the digits have 8 x 8 pixels and are only up-sampled\n"


@pytest.mark.slow
def test_pararevsnn_reaches_ninety_percent_with_the_examples_defaults(
    example: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert example([]) == 0
    assert float(capsys.readouterr().out.splitlines()[-1].split()[1].rstrip("%")) >= 90
