import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pararev_hw.errors import BadFile, BadInput, MissingDependency, UnknownName
from pararev_hw.training import data


def cifar_rows(rng: np.random.Generator, rows: int, *tops: int) -> np.ndarray:
    """Rows of the binary release: one label per entry of `tops`, below it, then the pixels."""
    labels = [rng.integers(0, top, size=(rows, 1), dtype=np.uint8) for top in tops]
    return np.hstack([*labels, rng.integers(0, 256, size=(rows, 3072), dtype=np.uint8)])


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]:
        cifar_rows(rng, 7, 10).tofile(tmp_path / name)
    return tmp_path


# ---- digits


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (13, 2), (32, 3)])
def test_digits_have_the_asked_shape_and_are_standardised_on_the_training_part(size: int, channels: int) -> None:
    d = data.digits(size, channels)
    assert len(d.train_x) + len(d.test_x) == 1797
    for part in (d.train_x, d.test_x):
        assert part.shape[1:] == (channels, size, size)
        assert part.dtype == torch.float32
    assert d.train_x.mean(dim=(0, 2, 3)) == pytest.approx(np.zeros(channels), abs=1e-5)
    assert d.train_x.std(dim=(0, 2, 3), correction=0) == pytest.approx(np.ones(channels), abs=1e-5)


def test_digits_at_their_own_size_are_the_images_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    d = data.digits(8, 1)
    ours = torch.cat([d.train_x, d.test_x]).flatten(1)
    ours = (ours - ours.min()) / (ours.max() - ours.min()) * 16  # undo the normalisation: the images span 0..16
    pairs = zip(ours.round().int().tolist(), torch.cat([d.train_y, d.test_y]).tolist(), strict=True)
    loaded = load_digits()
    theirs = zip(loaded.data.astype(int).tolist(), loaded.target.tolist(), strict=True)
    assert sorted(pairs) == sorted(theirs)


def test_digits_are_the_same_where_a_release_keeps_their_file_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from_file = data.digits(8, 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    from_function = data.digits(8, 1)
    for part in ("train_x", "train_y", "test_x", "test_y"):
        assert torch.equal(getattr(from_file, part), getattr(from_function, part))


_LOADS = """
import sys
import pararev_hw as ph
spikes = ph.trace("pararevsnn21").spikes
assert spikes is not None and "digits" in spikes.source, spikes
loaded = {"sklearn", "torch._dynamo", "torch._inductor", "triton"}.intersection(sys.modules)
assert not loaded, loaded
"""


def test_counting_spikes_on_the_digits_loads_neither_scikit_learn_nor_a_compiler() -> None:
    subprocess.run([sys.executable, "-c", _LOADS], check=True, timeout=120)


@settings(deadline=None, max_examples=15)
@given(share=st.floats(0.05, 0.9), seed=st.integers(0, 2**31))
def test_digits_split_is_stratified_and_the_same_for_the_same_seed(share: float, seed: int) -> None:
    a, b = data.digits(8, 1, share, seed), data.digits(8, 1, share, seed)
    assert torch.equal(a.test_x, b.test_x)
    assert torch.equal(a.train_y, b.train_y)
    test, total = torch.bincount(a.test_y, minlength=10), torch.bincount(torch.cat([a.test_y, a.train_y]))
    assert (test - share * total).abs().max() <= 0.5 + 1e-4


def test_digits_split_follows_the_seed() -> None:
    assert not torch.equal(data.digits(8, 1, seed=0).test_x, data.digits(8, 1, seed=1).test_x)


@pytest.mark.parametrize("wrong", [{"size": 7}, {"channels": 0}, {"test_share": 0.0}, {"test_share": 1.0}])
def test_digits_refuse_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        data.digits(**wrong)  # type: ignore[arg-type]


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "tonic.datasets", None)
    with pytest.raises(MissingDependency, match=r"scikit-learn .*pararev-hw\[digits\]"):
        data.digits()
    with pytest.raises(MissingDependency, match=r"tonic .*pararev-hw\[events\]"):
        data.event_frames("cifar10-dvs", tmp_path, 4)


# ---- the Dataset itself


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_x": torch.zeros(0, 1, 8, 8), "train_y": torch.zeros(0, dtype=torch.int64)}, "train_x"),
        ({"test_x": torch.zeros(4, 8)}, "test_x"),
        ({"train_y": torch.zeros(3, dtype=torch.int64)}, "train_y"),
        ({"train_y": torch.zeros(4)}, "int64"),
        ({"test_y": torch.full((4,), 2)}, r"0\.\.1"),
        ({"test_y": torch.full((4,), -1)}, r"0\.\.1"),
        ({"test_x": torch.zeros(4, 1, 9, 8)}, "same shape"),
    ],
)
def test_a_dataset_that_exists_is_valid(change: dict[str, torch.Tensor], message: str) -> None:
    good = {
        "train_x": torch.zeros(4, 1, 8, 8),
        "train_y": torch.zeros(4, dtype=torch.int64),
        "test_x": torch.zeros(4, 1, 8, 8),
        "test_y": torch.zeros(4, dtype=torch.int64),
    }
    data.Dataset(**good, classes=2, source="zeros")
    with pytest.raises(BadInput, match=message):
        data.Dataset(**(good | change), classes=2, source="zeros")


def test_standardising_uses_the_training_part_alone() -> None:
    y = torch.zeros(5, dtype=torch.int64)
    train = torch.arange(5 * 2 * 4, dtype=torch.uint8).reshape(5, 2, 2, 2)
    a = data.standardised((train, y), (train, y), classes=1, source="a")
    b = data.standardised((train, y), (train * 0, y), classes=1, source="b")
    assert torch.equal(a.train_x, b.train_x)
    assert torch.equal(a.train_x, a.test_x)
    assert not torch.equal(a.test_x, b.test_x)


def test_standardising_treats_every_channel_by_itself() -> None:
    x = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 10, 100]).view(3, 1, 1)
    y = torch.zeros(6, dtype=torch.int64)
    d = data.standardised((x, y), (x, y), classes=1, source="noise")
    expected = [(c - c.mean()) / c.std() for c in x.double().numpy().swapaxes(0, 1)]
    assert np.allclose(d.train_x.numpy().swapaxes(0, 1), expected, atol=1e-5)


def test_a_constant_channel_cannot_be_standardised() -> None:
    part = (torch.ones(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(BadInput, match="constant"):
        data.standardised(part, part, classes=1, source="ones")


# ---- CIFAR


def test_cifar10_gives_back_the_rows_that_were_written(cifar10: Path) -> None:
    written = np.vstack([np.fromfile(cifar10 / f"data_batch_{k}.bin", np.uint8).reshape(-1, 3073) for k in range(1, 6)])
    x, y = data.cifar10_binary(cifar10)
    assert x.shape == (35, 3, 32, 32)
    assert x.dtype == torch.uint8
    assert y.tolist() == written[:, 0].tolist()
    for row, image in zip(written, x, strict=True):  # red, green and blue planes, each row by row
        for c in range(3):
            assert image[c].flatten().tolist() == row[1 + 1024 * c : 1 + 1024 * (c + 1)].tolist()


def test_cifar10_test_part_is_its_own_file(cifar10: Path) -> None:
    x, y = data.cifar10_binary(cifar10, train=False)
    written = np.fromfile(cifar10 / "test_batch.bin", np.uint8).reshape(-1, 3073)
    assert y.tolist() == written[:, 0].tolist()
    assert x.flatten(1).tolist() == written[:, 1:].tolist()


def test_cifar100_knows_its_two_labels(tmp_path: Path) -> None:
    rows = cifar_rows(np.random.default_rng(1), 50, 20, 100)
    rows.tofile(tmp_path / "train.bin")
    fine_x, fine = data.cifar100_binary(tmp_path)
    coarse_x, coarse = data.cifar100_binary(tmp_path, labels="coarse")
    assert coarse.tolist() == rows[:, 0].tolist()
    assert fine.tolist() == rows[:, 1].tolist()
    assert fine_x.flatten(1).tolist() == coarse_x.flatten(1).tolist() == rows[:, 2:].tolist()


def test_cifar_is_found_in_the_folder_that_its_archive_unpacks_to(cifar10: Path, tmp_path: Path) -> None:
    inner = tmp_path / "given" / "cifar-10-batches-bin"
    inner.mkdir(parents=True)
    for file in cifar10.glob("*.bin"):
        (inner / file.name).write_bytes(file.read_bytes())
    assert torch.equal(data.cifar10_binary(tmp_path / "given")[0], data.cifar10_binary(cifar10)[0])


def test_cifar_makes_a_dataset(cifar10: Path) -> None:
    d = data.standardised(
        data.cifar10_binary(cifar10), data.cifar10_binary(cifar10, train=False), classes=10, source="CIFAR-10"
    )
    assert d.train_x.shape == (35, 3, 32, 32)
    assert d.test_x.shape == (7, 3, 32, 32)


@pytest.mark.parametrize("bytes_off", [-1, 1, -3073 * 7])
def test_cifar_of_a_wrong_size_is_refused(cifar10: Path, bytes_off: int) -> None:
    file = cifar10 / "data_batch_3.bin"
    raw = file.read_bytes() + b"\0"
    file.write_bytes(raw[: len(raw) - 1 + bytes_off])
    with pytest.raises(BadFile, match=r"data_batch_3\.bin has \d+ bytes: .*3073"):
        data.cifar10_binary(cifar10)


def test_cifar_label_out_of_range_names_file_and_row(cifar10: Path, tmp_path: Path) -> None:
    raw = bytearray((cifar10 / "test_batch.bin").read_bytes())
    raw[4 * 3073] = 10
    (cifar10 / "test_batch.bin").write_bytes(raw)
    with pytest.raises(BadFile, match=r"test_batch\.bin row 4 has label 10: labels are 0\.\.9"):
        data.cifar10_binary(cifar10, train=False)
    rows = cifar_rows(np.random.default_rng(0), 3, 20, 100)
    rows[1, :2] = 20, 100
    rows.tofile(tmp_path / "test.bin")
    with pytest.raises(BadFile, match=r"row 1 has label 100: labels are 0\.\.99"):
        data.cifar100_binary(tmp_path, train=False)
    with pytest.raises(BadFile, match=r"row 1 has label 20: labels are 0\.\.19"):
        data.cifar100_binary(tmp_path, train=False, labels="coarse")


def test_a_missing_folder_and_a_missing_file_are_named(cifar10: Path) -> None:
    with pytest.raises(BadFile, match="nowhere is not a folder"):
        data.cifar10_binary(cifar10 / "nowhere")
    (cifar10 / "data_batch_2.bin").unlink()
    (cifar10 / "data_batch_5.bin").unlink()
    with pytest.raises(BadFile, match=r"has no data_batch_2\.bin, data_batch_5\.bin: unpack the binary version"):
        data.cifar10_binary(cifar10)


@pytest.mark.parametrize("held", ["data_batch_1", "cifar-10-batches-py/data_batch_1"])
def test_the_pickled_version_is_recognised_and_never_loaded(tmp_path: Path, held: str) -> None:
    bomb = tmp_path / held
    bomb.parent.mkdir(exist_ok=True)
    bomb.write_bytes(b"cbuiltins\nexit\n(I3\ntR.")  # loading this would end the test run
    with pytest.raises(BadFile, match=r"pickled python version of CIFAR-10.*binary version"):
        data.cifar10_binary(tmp_path)


@pytest.mark.parametrize("held", ["train", "cifar-100-python/train"])
def test_the_pickled_version_of_cifar100_is_recognised(tmp_path: Path, held: str) -> None:
    (tmp_path / held).parent.mkdir(exist_ok=True)
    (tmp_path / held).write_bytes(b"")
    with pytest.raises(BadFile, match=r"pickled python version of CIFAR-100.*binary version"):
        data.cifar100_binary(tmp_path)


def test_an_unknown_set_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean coarse"):
        data.cifar100_binary(tmp_path, labels="course")  # type: ignore[arg-type]


# ---- events


def recording(rng: np.random.Generator, events: int) -> np.ndarray:
    """Columns x, y, polarity, time in ms: what tonic's copy of DVS128 Gesture holds."""
    spots = rng.integers(0, 128, size=(2, events))
    return np.stack([*spots, rng.integers(0, 2, events), np.sort(rng.integers(0, 500, events))], axis=1)


def frames_by_hand(events: np.ndarray, timesteps: int) -> np.ndarray:
    frames = np.zeros((timesteps, 2, 128, 128))
    per_frame = len(events) // timesteps
    for k in range(per_frame * timesteps):
        x, y, p = events[k][:3]
        frames[k // per_frame, p, y, x] += 1
    return frames


def test_gesture_frames_count_every_event_once(tmp_path: Path) -> None:
    pytest.importorskip("tonic", reason="needs the extra 'events'")
    rng = np.random.default_rng(0)
    inside = tmp_path / "DVSGesture" / "ibmGestureTest"
    (tmp_path / "DVSGesture").mkdir()
    (tmp_path / "DVSGesture" / "ibmGestureTest.tar.gz").touch()  # tonic takes what is there without the archive's hash
    written = {}
    for user in range(10):
        (inside / f"user{user:02}_led").mkdir(parents=True)
        for label in range(11):
            written[user, label] = recording(rng, int(rng.integers(8, 60)))
            np.save(inside / f"user{user:02}_led" / f"{label}.npy", written[user, label])

    samples = data.event_frames("dvs128-gesture", tmp_path, 4, train=False)
    assert len(samples) == 110
    assert samples.classes == 11
    in_order = sorted(written, key=lambda key: (key[0], str(key[1])))  # by file name
    for key, (frames, label) in zip(in_order, samples, strict=True):
        assert label == key[1]
        assert frames.dtype == torch.float32
        assert np.array_equal(frames.numpy(), frames_by_hand(written[key], 4))
    x, y = data.stack(samples)
    assert x.shape == (110, 4, 2, 128, 128)
    assert y.tolist() == [label for _, label in in_order]


def test_tonic_does_not_download_unasked(tmp_path: Path) -> None:
    pytest.importorskip("tonic", reason="needs the extra 'events'")
    with pytest.raises(BadFile, match=r"ibmGestureTrain\.tar\.gz .*download=True"):
        data.event_frames("dvs128-gesture", tmp_path, 4)
    assert list(tmp_path.iterdir()) == []


class CIFAR10DVS:
    """Behaves as tonic's class of that name: downloads in its constructor, lists files in the file system's order."""

    sensor_size = (128, 128, 2)
    classes = ("cat", "dog")
    filename = "CIFAR10DVS.zip"
    present = True

    def __init__(self, save_to: str, transform: object) -> None:
        self.location_on_system = f"{save_to}/{type(self).__name__}"
        if not self.present:
            self.download()
        self.data = [f"{name}/{k:03}" for k in reversed(range(20)) for name in self.classes]
        self.targets = [self.classes.index(file[:3]) for file in self.data]

    def download(self) -> None:
        raise AssertionError("this would have downloaded")

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, k: int) -> tuple[np.ndarray, int]:
        return np.full((4, 2, 1, 1), int(self.data[k][-3:]), dtype=np.int16), self.targets[k]


@pytest.fixture
def pretended_tonic(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in {
        "tonic": {},
        "tonic.datasets": {"CIFAR10DVS": CIFAR10DVS},
        "tonic.transforms": {"ToFrame": SimpleNamespace},
        "aedat": {},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("pretended_tonic")
def test_cifar10_dvs_parts_are_the_leading_nine_tenths_of_each_class_and_the_rest(tmp_path: Path) -> None:
    train = data.event_frames("cifar10-dvs", tmp_path, 4)
    test = data.event_frames("cifar10-dvs", tmp_path, 4, train=False)
    number_and_label = [(int(x[0, 0, 0, 0]), y) for x, y in train]
    assert number_and_label == [(k, label) for label in (0, 1) for k in range(18)]
    assert [(int(x[0, 0, 0, 0]), y) for x, y in test] == [(18, 0), (19, 0), (18, 1), (19, 1)]


@pytest.mark.usefixtures("pretended_tonic")
def test_absent_event_data_are_an_error_that_says_where_they_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR10DVS, "present", False)
    with pytest.raises(BadFile, match=r"/CIFAR10DVS does not hold CIFAR10DVS\.zip .*download=True"):
        data.event_frames("cifar10-dvs", tmp_path, 4)
    with pytest.raises(AssertionError, match="would have downloaded"):
        data.event_frames("cifar10-dvs", tmp_path, 4, download=True)


@pytest.mark.usefixtures("pretended_tonic")
def test_the_page_on_training_runs(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cifar10 / "data").mkdir()
    monkeypatch.chdir(cifar10)
    for file in cifar10.glob("*.bin"):
        file.rename(cifar10 / "data" / file.name)
    page = Path(__file__).parents[2] / "docs" / "training.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    made: dict[str, Any] = {}
    for block in blocks:
        exec(block, made)
    assert made["data"].source == "CIFAR10-DVS"
    assert len(made["run"].epochs) == 1


def test_event_frames_refuse_unknown_names_and_no_timesteps(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="dvs128-gesture"):
        data.event_frames("dvs-gesture", tmp_path, 4)
    with pytest.raises(BadInput, match="timesteps is 0"):
        data.event_frames("cifar10-dvs", tmp_path, 0)
