"""An experiment can be interrupted, resumed and recorded; quick runs leave nothing behind."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from implicitreg import experiments, records
from implicitreg.experiments import _runner
from implicitreg.experiments.__main__ import main


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """An experiment that squares numbers, counts its measurements, and can be told to fail at one of them."""
    source = tmp_path / "toy.py"
    source.write_text("first version")
    toy = SimpleNamespace(
        SETTINGS={"data": "digits", "numbers": [1, 2, 3], "seed": 7, "order_seeds": [9, 8]},
        QUICK={"numbers": [5]},
        FOR_DATA={"mnist": {"numbers": [4]}, "mine": {"numbers": [6]}},
        units=lambda settings: [f"x={x}" for x in settings["numbers"]],
        calls=[],
        fails_at=None,
        __file__=str(source),
    )

    def measure(unit, settings, device):
        toy.calls.append(unit)
        if unit == toy.fails_at:
            raise KeyboardInterrupt
        return {"square": int(unit[2:]) ** 2, "device": device.type}

    toy.measure = measure
    toy.run = lambda **options: _runner.run(
        "toy", device="cpu", folder=tmp_path / "records", unfinished=tmp_path / "pieces", **options
    )
    toy.pieces, toy.records = tmp_path / "pieces", tmp_path / "records"
    monkeypatch.setattr(_runner, "_module", lambda name: toy)
    return toy


def interrupted(toy, at):
    toy.fails_at = at
    with pytest.raises(KeyboardInterrupt):
        toy.run()
    toy.fails_at = None
    toy.calls.clear()


def test_a_run_leaves_a_record_with_settings_and_seeds(toy):
    results = toy.run()
    record = records.load("toy", folder=toy.records)
    assert results == record["results"] == {f"x={x}": {"square": x**2, "device": "cpu"} for x in (1, 2, 3)}
    assert record["settings"] == toy.SETTINGS
    assert record["seeds"] == [7, 8, 9]
    assert record["device"] == "cpu"


def test_an_interrupted_run_resumes_where_it_stopped(toy):
    interrupted(toy, at="x=3")
    assert not toy.records.exists()
    toy.run()
    assert toy.calls == ["x=3"]
    assert list(records.load("toy", folder=toy.records)["results"]) == ["x=1", "x=2", "x=3"]
    assert list(toy.pieces.iterdir()) == []


def test_wall_time_adds_up_over_interruptions(toy, monkeypatch):
    """Each measurement takes 10 s of a clock that only measurements move; interrupted twice."""
    clock = [0.0]
    monkeypatch.setattr(_runner.time, "perf_counter", lambda: clock[0])
    measure = toy.measure
    toy.measure = lambda *a: (clock.__setitem__(0, clock[0] + 10), measure(*a))[1]
    interrupted(toy, at="x=2")
    interrupted(toy, at="x=3")
    toy.run()
    assert records.load("toy", folder=toy.records)["wall_seconds"] == 30


@pytest.mark.parametrize(
    "change",
    [
        lambda toy: toy.SETTINGS.update(seed=8),
        lambda toy: toy.SETTINGS.update(extra=1),
        lambda toy: Path(toy.__file__).write_text("second version"),
    ],
    ids=["a seed", "a new setting", "the module"],
)
def test_pieces_made_otherwise_are_discarded(toy, change):
    interrupted(toy, at="x=3")
    change(toy)
    toy.run()
    assert toy.calls == ["x=1", "x=2", "x=3"]


def test_pieces_of_another_device_are_discarded(toy, monkeypatch):
    interrupted(toy, at="x=3")
    monkeypatch.setattr(_runner, "_words", lambda device: "a GPU")
    toy.run()
    assert toy.calls == ["x=1", "x=2", "x=3"]


def test_settings_with_tuples_resume_too(toy):
    """JSON has no tuples: the unfinished file gives lists back."""
    toy.SETTINGS["numbers"] = (1, 2, 3)
    interrupted(toy, at="x=3")
    toy.run()
    assert toy.calls == ["x=3"]


def test_quick_runs_print_and_write_nothing(toy, capsys):
    assert toy.run(quick=True) == {"x=5": {"square": 25, "device": "cpu"}}
    assert json.loads(capsys.readouterr().out) == {"x=5": {"square": 25, "device": "cpu"}}
    assert not toy.records.exists()
    assert not toy.pieces.exists()


def test_other_data_change_settings_and_the_name_of_the_record(toy):
    toy.run(data="mnist")
    record = records.load("toy_mnist", folder=toy.records)
    assert list(record["results"]) == ["x=4"]
    assert record["settings"]["data"] == "mnist"


def test_a_path_of_the_reader_does_not_enter_the_record(toy):
    toy.run(data="archive:/home/reader/Mine.tar.xz")
    record = records.load("toy_mine", folder=toy.records)
    assert record["settings"]["data"] == "archive:Mine.tar.xz"
    assert list(record["results"]) == ["x=6"]


def test_a_summary_joins_the_results(toy):
    toy.summary = lambda results, settings: {"total": sum(r["square"] for r in results.values())}
    assert toy.run()["summary"] == {"total": 14}


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        ({"square": float("nan")}, ValueError, "x=1: a result is not finite"),
        ({"square": torch.tensor(1.0)}, TypeError, "x=1: a result is no JSON value"),
    ],
    ids=["nan", "tensor"],
)
@pytest.mark.parametrize("quick", [False, True])
def test_results_are_finite_json_values(toy, result, error, message, quick):
    toy.measure = lambda *_: result
    toy.QUICK = {}
    with pytest.raises(error, match=message):
        toy.run(quick=quick)


@pytest.mark.parametrize(
    ("data", "name"),
    [("mnist", "mnist"), ("archive:cifar10_jpeg.tar.xz", "cifar10_jpeg"), ("folder:/a/My Images/", "my_images"),
     ("npz:b/fashion_mnist_900.npz", "fashion_mnist_900")],
)  # fmt: skip
def test_tag(data, name):
    assert _runner.tag(data) == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nothing"}, "name = 'nothing': expected one of 'drift_slope', 'growth'"),
        ({"name": "growth", "device": "tpu"}, "device = 'tpu': expected one of 'auto', 'cpu', 'cuda'"),
        ({"name": "growth", "data": "nothing", "device": "cpu", "quick": True}, "name = 'nothing'"),
    ],
    ids=["experiment", "device", "data"],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        experiments.run(**arguments)


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _runner._device("auto").type == "cpu"
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        _runner._device("cuda")


def test_without_a_name_the_command_lists_the_experiments(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(experiments.NAMES)
    assert all(len(line.split()) > 3 for line in lines)


def test_every_module_of_the_folder_is_listed():
    files = Path(_runner.__file__).parent.glob("[a-z]*.py")
    assert sorted(file.stem for file in files) == sorted(experiments.NAMES)


def test_the_command_says_what_is_wrong_without_a_traceback(capsys):
    assert main(["growth", "--data", "nothing", "--device", "cpu", "--quick"]) == 2
    assert "name = 'nothing'" in capsys.readouterr().err


def test_listing_names_needs_no_torch():
    code = "import sys, implicitreg; implicitreg.experiments.NAMES; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
