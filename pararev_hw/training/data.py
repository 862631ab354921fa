"""What networks are trained on: a data set that comes with scikit-learn, CIFAR from its binary release, event frames.

Nothing here downloads (`event_frames(..., download=True)` aside, where tonic does) and nothing unpickles.
Images are `[N, C, H, W]`, event recordings `[N, T, C, H, W]`, labels `[N]`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pararev_hw.errors import BadFile, BadInput, MissingDependency, unknown_name

LabelledImages = tuple[Tensor, Tensor]  # uint8 [N, C, H, W], int64 [N]

PIXELS = 3 * 32 * 32  # a CIFAR image: three planes of 32 x 32 bytes, red first


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A training and a test part, float32 inputs and int64 labels, ready to feed.

    Valid once constructed: one label in `0..classes - 1` per input, both parts of the same input shape, none empty.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    source: str

    def __post_init__(self) -> None:
        for part, x, y in (("train", self.train_x, self.train_y), ("test", self.test_x, self.test_y)):
            if x.ndim not in (4, 5) or len(x) == 0:
                raise BadInput(f"{part}_x is {list(x.shape)}: a part is [N, C, H, W] or [N, T, C, H, W] with N >= 1")
            if y.shape != x.shape[:1] or y.dtype != torch.int64:
                raise BadInput(f"{part}_y is {y.dtype} {list(y.shape)}: it must be int64 [{len(x)}], one per input")
            if int(y.min()) < 0 or int(y.max()) >= self.classes:
                raise BadInput(
                    f"{part}_y holds labels {int(y.min())}..{int(y.max())}: they must lie in 0..{self.classes - 1}"
                )
        if self.train_x.shape[1:] != self.test_x.shape[1:]:
            raise BadInput(
                f"train inputs are {list(self.train_x.shape[1:])} and test inputs {list(self.test_x.shape[1:])}: "
                "both parts must have the same shape"
            )


def standardised(train: LabelledImages, test: LabelledImages, *, classes: int, source: str) -> Dataset:
    """Both parts as float32, shifted and scaled so that every channel of the *training* part has mean 0 and variance 1.

    Takes `[N, C, H, W]` of any dtype. Raises BadInput where a channel of the training part is constant.
    """
    (train_x, train_y), (test_x, test_y) = train, test
    if train_x.ndim != 4 or len(train_x) == 0:
        raise BadInput(f"the training images are {list(train_x.shape)}: they must be [N, C, H, W] with N >= 1")
    train_x, test_x = train_x.float(), test_x.float()
    std, mean = torch.std_mean(train_x, dim=(0, 2, 3), keepdim=True, correction=0)
    if not bool((std > 0).all()):
        raise BadInput(f"a channel of {source} is constant over the training part: it cannot be normalised")
    return Dataset((train_x - mean) / std, train_y, (test_x - mean) / std, test_y, classes, source)


def digits(size: int = 32, channels: int = 3, test_share: float = 0.2, seed: int = 0) -> Dataset:
    """The 1797 handwritten digits of 8 x 8 pixels that come inside scikit-learn, as `[N, channels, size, size]`.

    Up-sampled bilinearly, the same in every channel, normalised. The split is stratified: `test_share` of each class,
    rounded, chosen by `seed`. Needs the extra `digits`.
    """
    if size < 8:
        raise BadInput(f"size is {size}: the digits have 8 x 8 pixels and are only up-sampled")
    if channels < 1:
        raise BadInput(f"channels is {channels}: at least 1 is needed")
    if not 0.0 < test_share < 1.0:
        raise BadInput(f"test_share is {test_share}: it must lie between 0 and 1")
    images, labels = _scikit_learn_digits()
    small = torch.from_numpy(images).float().unsqueeze(1)
    x = torch.nn.functional.interpolate(small, size=(size, size), mode="bilinear").repeat(1, channels, 1, 1)
    y = torch.from_numpy(labels).long()
    train, test = _stratified(y.numpy(), test_share, seed)
    return standardised((x[train], y[train]), (x[test], y[test]), classes=10, source="scikit-learn digits")


def cifar10_binary(folder: str | Path, train: bool = True) -> LabelledImages:
    """CIFAR-10 from its official binary release: uint8 `[N, 3, 32, 32]` and labels 0..9.

    `folder` holds `data_batch_1.bin` .. `data_batch_5.bin` and `test_batch.bin` (rows of a label and 3072 pixels), or
    is the one in which `cifar-10-batches-bin` was unpacked. Raises BadFile for anything else.
    """
    names = [f"data_batch_{k}.bin" for k in range(1, 6)] if train else ["test_batch.bin"]
    base = _release(folder, names, "CIFAR-10", binary="cifar-10-batches-bin", python="cifar-10-batches-py")
    parts = [_rows(base / name, label_bytes=1, label_at=0, classes=10) for name in names]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def cifar100_binary(
    folder: str | Path, train: bool = True, labels: Literal["fine", "coarse"] = "fine"
) -> LabelledImages:
    """CIFAR-100 from its official binary release: uint8 `[N, 3, 32, 32]` and labels 0..99 (fine) or 0..19 (coarse).

    `folder` holds `train.bin` and `test.bin` (rows of a coarse label, a fine label and 3072 pixels), or is the one in
    which `cifar-100-binary` was unpacked. Raises BadFile for anything else.
    """
    if labels not in ("fine", "coarse"):
        raise unknown_name("set of CIFAR-100 labels", labels, ("fine", "coarse"))
    name = "train.bin" if train else "test.bin"
    base = _release(folder, [name], "CIFAR-100", binary="cifar-100-binary", python="cifar-100-python")
    fine = labels == "fine"
    return _rows(base / name, label_bytes=2, label_at=1 if fine else 0, classes=100 if fine else 20)


@dataclass(frozen=True, slots=True, eq=False)
class EventFrames:
    """Recordings read and binned one at a time: item `k` is (float32 `[T, 2, 128, 128]` event counts, label)."""

    recordings: Any  # a tonic data set whose transform makes the frames
    chosen: tuple[int, ...]
    classes: int

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        frames, label = self.recordings[self.chosen[k]]
        return torch.from_numpy(np.asarray(frames, dtype=np.float32)), int(label)

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return (self[k] for k in range(len(self)))


def event_frames(
    dataset: str, path: str | Path, timesteps: int, *, train: bool = True, download: bool = False
) -> EventFrames:
    """The recordings of `cifar10-dvs` or `dvs128-gesture` as `timesteps` frames each, read through tonic.

    A recording is cut into `timesteps` slices of equally many events, as RevSNN does (arXiv 2312.07922), and the events
    of a slice are counted per polarity and pixel. DVS128 Gesture has its own test part; of CIFAR10-DVS the first 90 %
    of each class, by file name, are for training.

    `path` is the folder that tonic fills: `path/CIFAR10DVS` or `path/DVSGesture`, with the archive and what was
    unpacked from it. Where that is missing a BadFile says so; only with `download=True` tonic fetches it. Needs the
    extra `events`.
    """
    class_names = {"cifar10-dvs": "CIFAR10DVS", "dvs128-gesture": "DVSGesture"}
    if dataset not in class_names:
        raise unknown_name("event data set", dataset, tuple(class_names))
    if timesteps < 1:
        raise BadInput(f"timesteps is {timesteps}: at least 1 is needed")
    datasets = _optional("tonic.datasets", "tonic", "events")
    transforms = _optional("tonic.transforms", "tonic", "events")
    options: dict[str, Any] = {"train": train}
    if dataset == "cifar10-dvs":
        _optional("aedat", "aedat", "events")  # tonic reads these files with it, and does not ask for it
        options = {}
    kind = getattr(datasets, class_names[dataset])
    binning = transforms.ToFrame(sensor_size=kind.sensor_size, n_event_bins=timesteps)
    recordings = (kind if download else _local_only(kind))(save_to=str(path), transform=binning, **options)

    order = sorted(range(len(recordings)), key=lambda k: recordings.data[k])  # tonic keeps the order of the file system
    if dataset == "cifar10-dvs":
        order = _leading_share(order, recordings.targets, 0.9, leading=train)
    return EventFrames(recordings, tuple(order), classes=len(kind.classes))


def stack(samples: Iterable[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Samples as one tensor and their labels as another: the parts of a `Dataset`. All are held in memory."""
    xs, ys = zip(*samples, strict=True)
    return torch.stack(xs), torch.tensor(ys, dtype=torch.int64)


def _optional(module: str, package: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as problem:
        raise MissingDependency(f"{package} is not installed: pip install 'pararev-hw[{extra}]'") from problem


def _scikit_learn_digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images `[1797, 8, 8]` and their labels, from the file inside scikit-learn, which takes a second to import; by
    `load_digits` where a release keeps the file elsewhere."""
    package = importlib.util.find_spec("sklearn")
    for place in (package.submodule_search_locations or ()) if package is not None else ():
        file = Path(place, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            rows = np.loadtxt(file, delimiter=",")
            return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
    loaded = _optional("sklearn.datasets", "scikit-learn", "digits").load_digits()
    return loaded.images, loaded.target


def _stratified(labels: np.ndarray[Any, Any], test_share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices for training and for testing, each in ascending order."""
    rng = np.random.default_rng(seed)
    test: list[int] = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(round(test_share * len(members)), 1), len(members) - 1)
        test.extend(members[:count].tolist())
    chosen = set(test)
    return [k for k in range(len(labels)) if k not in chosen], sorted(test)


def _leading_share(order: list[int], targets: list[int], share: float, *, leading: bool) -> list[int]:
    """Of each class the first `share` of its members in `order`, or the rest."""
    sizes = {label: targets.count(label) for label in set(targets)}
    count_of = dict.fromkeys(sizes, 0)
    chosen = []
    for k in order:
        label = targets[k]
        if (count_of[label] < round(share * sizes[label])) == leading:
            chosen.append(k)
        count_of[label] += 1
    return chosen


def _local_only(kind: Any) -> Any:
    """The tonic data set class `kind`, with an error in place of its download."""

    def refuse(self: Any) -> None:
        raise BadFile(
            f"{self.location_on_system} does not hold {self.filename} and what it unpacks to: "
            "put it there, or pass download=True to let tonic fetch it"
        )

    # tonic looks in a folder that has the name of the class
    return type(kind.__name__, (kind,), {"download": refuse})


def _release(folder: str | Path, names: list[str], dataset: str, *, binary: str, python: str) -> Path:
    """The folder that holds all of `names`: `folder` itself, or the release's own folder `binary` in it."""
    base = Path(folder)
    if not base.is_dir():
        raise BadFile(f"{base} is not a folder: give the one that holds {', '.join(names)}")
    if not (base / names[0]).exists() and (base / binary).is_dir():
        base = base / binary
    missing = [name for name in names if not (base / name).is_file()]
    if not missing:
        return base
    if (base / Path(missing[0]).stem).is_file() or (base / python).is_dir():
        raise BadFile(
            f"{base} holds the pickled python version of {dataset}, which is not read: get the binary version"
        )
    raise BadFile(f"{base} has no {', '.join(missing)}: unpack the binary version of {dataset} there")


def _rows(path: Path, *, label_bytes: int, label_at: int, classes: int) -> LabelledImages:
    """The rows of one file: `label_bytes` labels, of which the one at `label_at` counts, then 3072 pixels."""
    row_bytes = label_bytes + PIXELS
    try:
        raw = np.fromfile(path, dtype=np.uint8)
    except OSError as problem:
        raise BadFile(f"{path} cannot be read: {problem.strerror}") from problem
    if raw.size == 0 or raw.size % row_bytes:
        raise BadFile(f"{path} has {raw.size} bytes: a whole number of rows of {row_bytes} bytes is expected")
    rows = torch.from_numpy(raw).reshape(-1, row_bytes)
    labels = rows[:, label_at].long()
    wrong = torch.nonzero(labels >= classes)
    if len(wrong):
        row = int(wrong[0])
        raise BadFile(f"{path} row {row} has label {int(labels[row])}: labels are 0..{classes - 1}")
    return rows[:, label_bytes:].reshape(-1, 3, 32, 32).clone(), labels
