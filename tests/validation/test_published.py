"""Published steps: tables and traces made here, so that neither timm nor anyone's tables are needed."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import pararev_hw as ph
from pararev_hw.devices import load_device, load_host, with_host
from pararev_hw.errors import BadInput, UnknownName
from pararev_hw.tracing import DispatchRules, trace_step
from pararev_hw.types import BlockGraph
from pararev_hw.validation import validate_published
from pararev_hw.validation.published_networks import building_networks, cached, eager_seconds, workload_of
from tests.helpers.command_line import run

TIMM = "timm-train-amp-nchw-rtx3090.csv"


def tiny() -> BlockGraph:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    x = torch.empty((64, 3, 8, 8), device="meta")
    return trace_step(model, x, dtype="float16", rules=DispatchRules(cuda=True), granularity="op").graph


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One table with two networks, of which one is traced already."""
    rows = "model,train_step_time,train_batch_size,train_img_size\nseen_small,2.5,64,8\nunseen_small,2.5,64,8\n"
    (tmp_path / TIMM).write_text(rows)
    cached(tmp_path / "traces" / "timm-nchw", "seen_small", tiny)
    return tmp_path


def test_a_traced_network_is_compared_without_timm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    result = validate_published(folder, traces=folder / "traces")
    (case,) = result.cases
    device = with_host(load_device("rtx3090"), load_host("published-rtx3090"))
    assert case.predicted_s == pytest.approx(eager_seconds(workload_of(tiny()), device))
    assert (case.network, case.family, case.published_s) == ("seen_small", "seen", 2.5e-3)
    assert case.error == pytest.approx(case.predicted_s / 2.5e-3 - 1)
    missing, other, without = result.left_out
    assert missing == "timm-train-amp-nhwc-rtx3090.csv: not in the folder"
    assert other == "torchvision-batch12.csv: not in the folder"
    assert without.startswith("unseen_small: timm is not installed: `pip install --no-deps timm==0.6.7")


def test_the_step_is_the_eager_one_of_a_prediction() -> None:
    g = tiny()
    device = with_host(load_device("rtx3090"), load_host("published-rtx3090"))
    plan = ph.schedule(g, device, "sequential", launch="eager")
    assert eager_seconds(workload_of(g), device) == pytest.approx(plan.predict().latency_s, rel=0.02)


@pytest.mark.parametrize(
    ("table", "dtype", "card", "host"),
    [
        ("TITANXP/TITAN_Xp", "float", "titan-xp", "c"),
        ("2080TI/GeForce_RTX_2080_Ti", "half", "rtx2080ti", "b"),
        ("1080TI/single_model_inference_benchmark.csv", "single", "gtx1080ti", "d"),
    ],
)
def test_a_host_has_a_pace_of_its_own_without_gradients_and_in_copies(
    tmp_path: Path, table: str, dtype: str, card: str, host: str
) -> None:
    (tmp_path / "torchvision-batch12.csv").write_text(f"gpu,dtype,mode,net,median_ms\n{table},{dtype},infer,tiny,2\n")
    item = {"half": 2}.get(dtype, 4)
    cached(tmp_path / "torchvision", f"tiny-{'half' if item == 2 else 'float'}-infer", tiny)
    (case,) = validate_published(tmp_path, traces=tmp_path).cases
    fitted = yaml.safe_load((Path(ph.__file__).parent / "devices/fitted/gpu.yaml").read_text())["hosts"][host]
    device = with_host(load_device(card), load_host(f"published-{host}"))
    assert device.value("host_factor.inference") == fitted["host_factor.inference"]["value"]
    copied = item * 12 * 3 * 224 * 224 / fitted["copy_bytes_per_s"]["value"]
    assert case.predicted_s == pytest.approx(eager_seconds(workload_of(tiny()), device) + copied)


def test_what_is_wrong_is_named(folder: Path) -> None:
    with pytest.raises(UnknownName, match="no published network is called 'sen_small': did you mean seen_small"):
        validate_published(folder, networks=["sen_small"])
    with pytest.raises(BadInput, match="not a folder"):
        validate_published(folder / TIMM)
    with pytest.raises(BadInput, match=r"no step of the tables timm-train-amp-nchw-rtx3090\.csv, [^:]*\.csv$"):
        validate_published(folder / "traces")
    (folder / "traces" / "timm-nchw" / "seen_small.json.gz").write_bytes(b"no trace")
    with pytest.raises(BadInput, match=r"seen_small\.json\.gz: no trace"):
        validate_published(folder, traces=folder / "traces", networks=["seen_small"])
    (folder / TIMM).write_text("model,batch\na,1\n")
    with pytest.raises(BadInput, match=rf"{TIMM}: not the table .*: no column 'train_batch_size'$"):
        validate_published(folder)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("", "no row of a card that is known"),
        ("gpu,dtype,mode,net,median_ms\nA Card,float,train,vgg11,9\n", "no row of a card that is known"),
        ("gpu,dtype,mode,net\nTITANXP/TITAN_Xp,float,train,vgg11\n", "no column 'median_ms'"),
        (
            "gpu,dtype,mode,net,median_ms\nTITANXP/TITAN_Xp,float,train,vgg11,nine\n",
            "could not convert string to float",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_named_and_the_rest_goes_on(folder: Path, rows: str, reason: str) -> None:
    (folder / "torchvision-batch12.csv").write_text(rows)
    result = validate_published(folder, traces=folder / "traces", networks=["seen_small"])
    assert [case.network for case in result.cases] == ["seen_small"]
    named = next(line for line in result.left_out if line.startswith("torchvision-batch12.csv: "))
    assert reason in named


def test_step_times_in_other_units_are_told_by_the_images_per_second(folder: Path) -> None:
    table = "model,train_samples_per_sec,train_step_time,train_batch_size,train_img_size\nseen_small,25600,{},64,8\n"
    (folder / TIMM).write_text(table.format(2.5))
    assert validate_published(folder, traces=folder / "traces").cases[0].published_s == 2.5e-3
    (folder / TIMM).write_text(table.format(0.0025))
    with pytest.raises(BadInput, match=r"at train_samples_per_sec 25600 takes 2\.5 ms, not train_step_time 0\.0025"):
        validate_published(folder, traces=folder / "traces")


def test_the_verb(folder: Path) -> None:
    command = ["validate", "--published", folder, "--traces", folder / "traces", "--networks", "seen_small"]
    done = run(*command, "--json", "-o", folder / "out", "--tolerance", "0.0001")
    document = json.loads(done.out)
    assert done.status == 1  # the mean error is above the tolerance
    assert document["latency"]["mape"] == pytest.approx(abs(document["cases"][0]["error"]))
    assert json.loads((folder / "out" / "published.json").read_text()) == document
    assert "left out: torchvision-batch12.csv: not in the folder" in done.err
    refused = run(*command, "--mode", "infer")
    assert refused.status == 2
    assert "--published names cards and networks of its own: leave --mode out" in refused.line


def test_networks_built_later_have_their_weights_drawn() -> None:
    """Published networks are built without drawing any; one that is built afterwards, also after an error, has them."""
    with pytest.raises(KeyError), building_networks():
        assert not any(nn.init.ones_(torch.zeros(3)))
        raise KeyError
    weight = nn.init.ones_(torch.zeros(3))
    assert weight.tolist() == [1.0, 1.0, 1.0]
