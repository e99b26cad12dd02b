"""An experiment can be interrupted, resumed and recorded; quick runs leave nothing behind."""

import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import FunctionType, SimpleNamespace

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


@pytest.mark.parametrize("text", ["", '{"identity": {}', "[1]", '{"results": {}}', "null", "\ufeff"])
def test_a_damaged_file_of_pieces_is_named(toy, text):
    interrupted(toy, at="x=3")
    (toy.pieces / "toy.json").write_text(text, "utf8")
    with pytest.raises(ValueError, match=r"toy\.json holds no finished pieces of a run: delete it"):
        toy.run()


def test_settings_with_tuples_resume_too(toy):
    """JSON has no tuples: the unfinished file gives lists back."""
    toy.SETTINGS["numbers"] = (1, 2, 3)
    interrupted(toy, at="x=3")
    toy.run()
    assert toy.calls == ["x=3"]


def test_a_device_changes_settings_and_data_change_them_more(toy):
    toy.FOR_DEVICE = {"cuda": {"numbers": [10, 20], "more": 1}, "cpu": {"numbers": [30]}}
    asked = ("digits", "cuda", False), ("mnist", "cuda", False), ("digits", "cpu", False), ("mnist", "cuda", True)
    settings = [_runner._settings(toy, data, torch.device(device), quick) for data, device, quick in asked]
    assert [s["numbers"] for s in settings] == [[10, 20], [4], [30], [5]]
    assert [s.get("more") for s in settings] == [1, 1, None, 1]


def test_the_file_that_measures_counts_as_source(toy, tmp_path):
    """An experiment may take its measuring from a file that it shares with others."""
    shared = tmp_path / "shared.py"
    shared.write_text("first version")
    toy.measure = FunctionType(toy.units.__code__.replace(co_filename=str(shared)), {})
    before = _runner._identity(toy, {}, torch.device("cpu"))
    assert before == _runner._identity(toy, {}, torch.device("cpu"))
    shared.write_text("second version")
    assert before != _runner._identity(toy, {}, torch.device("cpu"))


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


# --- side by side -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """A Dask cluster on this machine: two workers, each a process."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(params=["processes", "cluster"])
def apart(request, toy):
    """The toy in other processes: what it does there is read from files, and ``toy.options`` sends it there."""
    started, fails = (toy.pieces.parent / name for name in ("started", "fails"))
    started.touch()

    def measure(unit, settings, device):
        with started.open("a") as file:
            file.write(unit + "\n")
        if fails.exists() and fails.read_text() == unit:
            raise ValueError("no square today")
        return {"square": int(unit[2:]) ** 2, "process": os.getpid(), "threads": torch.get_num_threads()}

    def wait(path, text):
        end = time.monotonic() + 30
        while not (path.exists() and text in path.read_text()):
            assert time.monotonic() < end
            time.sleep(0.01)

    toy.measure, toy.wait, toy.started, toy.fails = measure, wait, started, fails
    toy.options = {"jobs": 2} if request.param == "processes" else {"dask": request.getfixturevalue("cluster")}
    return toy


def test_pieces_run_side_by_side_and_are_kept_as_they_finish(apart):
    """The first one waits until the second one has begun, and the second one until the first one is on disk."""
    measure, wait, started, pieces = apart.measure, apart.wait, apart.started, apart.pieces / "toy.json"

    def interlocked(unit, settings, device):
        result = measure(unit, settings, device)
        if unit != "x=3":
            wait(*((started, "x=2") if unit == "x=1" else (pieces, "x=1")))
        return result

    apart.measure = interlocked
    results = apart.run(**apart.options)
    assert [(unit, result["square"]) for unit, result in results.items()] == [("x=1", 1), ("x=2", 4), ("x=3", 9)]
    assert os.getpid() not in {result["process"] for result in results.values()}
    assert list(apart.pieces.iterdir()) == []


def test_a_piece_that_fails_is_named_and_the_others_are_kept(apart, capsys):
    apart.fails.write_text("x=2")
    with pytest.raises(ValueError, match="no square today") as caught:
        apart.run(**apart.options)
    assert caught.value.__notes__[0] == "in the piece 'x=2'"
    assert "in measure" in caught.value.__notes__[1]  # the traceback of the other process
    assert "x=2 failed, the other pieces go on: ValueError('no square today')" in capsys.readouterr().err
    apart.fails.unlink()
    apart.started.write_text("")
    assert list(apart.run(**apart.options)) == ["x=1", "x=2", "x=3"]
    assert apart.started.read_text() == "x=2\n"


def test_an_interrupted_run_resumes_side_by_side(apart, monkeypatch):
    """Ctrl-C when the first piece is on disk."""
    add = _runner._State.add

    def add_and_stop(state, piece):
        add(state, piece)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_runner._State, "add", add_and_stop)
        with pytest.raises(KeyboardInterrupt):
            apart.run(**apart.options)
    kept = set(json.loads((apart.pieces / "toy.json").read_text())["results"])
    apart.started.write_text("")
    apart.run(**apart.options)
    assert len(kept) == 1
    assert set(apart.started.read_text().split()) == {"x=1", "x=2", "x=3"} - kept


def test_a_piece_has_one_thread_wherever_it_runs(apart):
    apart.QUICK = {}
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for options in ({}, apart.options):
            assert {result["threads"] for result in apart.run(quick=True, **options).values()} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_process_loads_what_its_piece_needs(toy):
    def measure(unit, settings, device):
        return {"loaded": sorted({"torch", "matplotlib", "sklearn", "distributed", "pytest"} & set(sys.modules))}

    toy.measure, toy.QUICK = measure, {}
    assert all(result["loaded"] == ["torch"] for result in toy.run(quick=True, jobs=2).values())


def test_wall_time_is_the_sum_over_pieces_that_run_at_once(toy):
    def measure(unit, settings, device):
        time.sleep(0.2)
        return {}

    toy.measure = measure
    toy.run(jobs=3)
    assert records.load("toy", folder=toy.records)["wall_seconds"] >= 0.6


@pytest.mark.parametrize("name", ["growth", "one_step_gap"])
def test_a_record_is_the_same_bit_for_bit_however_many_processes_made_it(name, tmp_path, monkeypatch, request):
    """Control: other seeds make another record."""
    module = import_module(f"implicitreg.experiments.{name}")
    short = {**module.SETTINGS, **module.QUICK, "limit": 150}

    def record(title, **options):
        experiments.run(name, device="cpu", folder=tmp_path / title, unfinished=tmp_path / "pieces", **options)
        record = records.load(name, folder=tmp_path / title)
        assert record.pop("wall_seconds") > 0
        return record

    monkeypatch.setattr(module, "SETTINGS", short)
    alone = record("alone")
    assert len(alone["results"]) == 2
    assert record("processes", jobs=2) == alone
    assert record("cluster", dask=request.getfixturevalue("cluster")) == alone
    monkeypatch.setattr(module, "SETTINGS", short | {"seeds": [2, 3], "data_seed": 5})
    assert record("control", jobs=2)["results"] != alone["results"]


def test_a_piece_that_fails_alone_is_named(toy):
    toy.measure = lambda *_: {"square": 1 // 0}
    with pytest.raises(ZeroDivisionError) as caught:
        toy.run()
    assert caught.value.__notes__ == ["in the piece 'x=1'"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"jobs": 0}, ValueError, "jobs = 0: expected an integer >= 1"),
        ({"jobs": 2.0}, TypeError, "jobs = 2.0: expected an integer"),
        ({"jobs": 2, "dask": "tcp://a:1"}, ValueError, "jobs = 2: expected 1 with dask = 'tcp://a:1'"),
        ({"dask": "tcp://127.0.0.1:1"}, ValueError, "dask = 'tcp://127.0.0.1:1': expected the address of a running"),
        ({"dask": "nonsense://a"}, ValueError, "dask = 'nonsense://a': expected the address of a running"),
    ],
    ids=["none", "not an integer", "both", "nobody answers", "no address"],
)
def test_bad_workers(toy, monkeypatch, options, error, message):
    pytest.importorskip("distributed")
    monkeypatch.setattr(_runner, "CONNECT", 0.5)
    with pytest.raises(error, match=message):
        toy.run(**options)
    assert toy.calls == []


@pytest.mark.parametrize(
    ("options", "message"),
    [({"jobs": 2}, "jobs = 2: expected 1 on a CUDA"), ({"dask": "tcp://a:1"}, "dask = 'tcp://a:1': expected none on")],
    ids=["jobs", "dask"],
)
def test_a_gpu_has_one_process(toy, monkeypatch, options, message):
    monkeypatch.setattr(_runner, "_device", lambda device: torch.device("cuda"))
    with pytest.raises(ValueError, match=message):
        toy.run(**options)


def test_without_distributed_the_message_says_what_to_install(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match="pip install distributed"):
        toy.run(dask="tcp://127.0.0.1:1")


def test_the_command_takes_jobs_and_names_the_piece_that_fails(capsys):
    assert main(["growth", "--quick", "--device", "cpu", "--jobs", "0"]) == 2
    assert "jobs = 0: expected" in capsys.readouterr().err
    assert main(["growth", "--quick", "--device", "cpu", "--jobs", "2", "--data", "nothing"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "name = 'nothing'" in line
    assert "(in the piece 'noise 0" in line
