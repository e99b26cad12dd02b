"""Training goes on where it stopped, to the bit; and every fault of a file is an error that names it."""

import errno
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from implicitreg import nets
from implicitreg.noise.msgd import train
from implicitreg.training import _checkpoint
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:the model normalises")


def problem(seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(12, 5)), generator.integers(3, size=12)


def mlp():
    return nets.mlp((5, 4, 3), seed=1)


def shaky():
    """Draws random numbers and has buffers."""
    norm = nn.BatchNorm1d(4, dtype=torch.float64)
    return nn.Sequential(nets.mlp((5, 4), seed=1), norm, nn.Dropout(0.3), nets.mlp((4, 3), seed=2))


def go(model, file, data=None, **changes):
    options = {"kind": "gaussian_cov", "b": 4, "B": 6, "eta": 0.3, "steps": 20, "evaluate_every": 5} | changes
    return train(model, data or problem(), problem(1), **options, checkpoint=file, progress=False, device="cpu")


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same_history(a, b):
    return all(np.array_equal(a.curves()[name], b.curves()[name]) for name in a.curves() | b.curves())


# Going on


@pytest.mark.parametrize("make", [mlp, shaky])
@pytest.mark.parametrize("kind", ["gaussian_cov", "sgd", "sgd_epochs", "bernoulli", "minibatch_cov", "gld_iso"])
def test_going_on_is_not_having_stopped(tmp_path, kind, make):
    if make is shaky and kind in ("gld_iso", "bernoulli"):
        pytest.skip("needs examples that do not interact, or batches of more than one")
    whole, part = make(), make()
    expected = go(whole, None, kind=kind)
    go(part, tmp_path / "c.npz", kind=kind, steps=13)
    part = make()
    h = go(part, tmp_path / "c.npz", kind=kind)
    assert same(state(part), state(whole))
    assert same_history(h, expected)
    again = make()
    assert same_history(go(again, tmp_path / "c.npz", kind=kind), expected)  # nothing left to do
    assert same(state(again), state(whole))
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".part"]


KILLED = """
import sys, numpy as np
sys.path.insert(0, {tests!r})
from training.test_checkpoint import go, shaky
import torch, time
model, calls = shaky(), 0
plain = model.forward
def slow(x):
    global calls
    calls += 1
    if calls == 30:
        print("now", flush=True)
    if calls >= 30:
        time.sleep(0.05)
    return plain(x)
model.forward = slow
go(model, {file!r}, steps=40, checkpoint_every=3)
"""


def test_a_killed_process_is_taken_up(tmp_path):
    file = tmp_path / "c.npz"
    code = KILLED.format(tests=str(Path(__file__).parents[1]), file=str(file))
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"now\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 0 < _checkpoint.load(file)[1]["step"] < 40
    resumed, whole = shaky(), shaky()
    h = go(resumed, file, steps=40, checkpoint_every=3)
    assert same_history(h, go(whole, None, steps=40))
    assert same(state(resumed), state(whole))


def test_a_smaller_chunk_or_other_looks_may_go_on(tmp_path):
    go(mlp(), tmp_path / "c.npz", steps=10)
    h = go(mlp(), tmp_path / "c.npz", chunk=4, evaluate_every=10)
    assert h.step.tolist() == [0, 10, 20]


# Faults


def damaged(raw):
    """Copies of a file with something wrong."""
    yield from (raw[:k] for k in range(0, len(raw), 97))
    yield from (raw[k:] for k in (1, 100))
    for k in range(0, len(raw), 53):
        yield raw[:k] + bytes([raw[k] ^ 0x10]) + raw[k + 1 :]
    yield b"not a checkpoint"
    file = io.BytesIO()
    np.save(file, np.ones(3))
    yield file.getvalue()
    file = io.BytesIO()
    np.savez(file, **{_checkpoint.NOTE: np.array("{}")})
    yield file.getvalue()


def refusal(file):
    """What `load` says of the file, or nothing."""
    try:
        _checkpoint.load(file)
    except ValueError as error:
        return str(error)
    return ""


def test_a_damaged_file_is_refused_by_name_unless_its_content_is_the_same(tmp_path):
    """A few bytes, such as times in the archive, are read by nobody."""
    file = tmp_path / "c.npz"
    _checkpoint.save(file, {"model/x": np.arange(5.0)}, {"step": 3, "identity": {}})
    raw, read = file.read_bytes(), []
    for changed in damaged(raw):
        file.write_bytes(changed)
        if said := refusal(file):
            assert said.startswith(f"checkpoint {file} is damaged")
        else:
            read.append(_checkpoint.load(file))
    assert len(read) < 10
    for arrays, note in read:
        assert note == {"step": 3, "identity": {}}
        assert np.array_equal(arrays["model/x"], np.arange(5.0))


def test_a_damaged_file_leaves_the_model_alone(tmp_path):
    file, model = tmp_path / "c.npz", mlp()
    file.write_bytes(b"")
    before = state(model)
    with pytest.raises(ValueError, match=re.escape(str(file))):
        go(model, file)
    assert same(state(model), before)


def test_other_numbers_in_a_sound_archive_are_refused(tmp_path):
    file = tmp_path / "c.npz"
    _checkpoint.save(file, {"model/x": np.arange(5.0)}, {"step": 3, "identity": {}})
    with np.load(file) as archive:
        content = dict(archive)
    for change in (
        {"model/x": np.arange(5.0) + 1},
        {"model/y": np.ones(1)},
        {_checkpoint.NOTE: np.array('{"step": 4}')},
    ):
        np.savez(file, **content | change)
        assert "SHA-256" in refusal(file)
    np.savez(file, **content)
    assert not refusal(file)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_nothing_in_a_file_is_executed(tmp_path):
    file, trap = tmp_path / "c.npz", Trap(str(tmp_path / "trap"))
    np.savez(file, **{"model/x": np.array([trap], dtype=object), _checkpoint.NOTE: np.array("{}")})
    with pytest.raises(ValueError, match="no checkpoint"):
        go(mlp(), file)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eta": 0.2}, "eta is 0.3 there and 0.2 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"kind": "sgd"}, "kind is 'gaussian_cov' there and 'sgd' here"),
        ({"b": 3}, "b is 4 there and 3 here"),
        ({"schedule": {3: 0.5}}, "schedule to step 20 is"),
        ({"loss": lambda outputs, y: outputs[:, 0]}, "loss is 'cross_entropy' there and .*lambda.* here"),
        ({"model": nets.mlp((5, 6, 3))}, r"shape of 0.bias is \[4\] there and \[6\] here"),
        ({"model": nn.Sequential(mlp())}, r"shape of 0.0.bias is None there and \[4\] here"),
        ({"model": nets.mlp((5, 4, 3), dtype=torch.float32)}, "precision is 'float64' there and 'float32' here"),
        ({"data": problem(7)}, "training examples is '[0-9a-f]+' there"),
        ({"steps": 10}, "is at step 20: expected steps >= 20, got steps = 10"),
    ],
)
def test_a_file_of_another_run_is_refused_and_says_what_differs(tmp_path, changes, words):
    file = tmp_path / "c.npz"
    go(mlp(), file)
    raw, changes = file.read_bytes(), {"model": mlp()} | changes
    model = changes.pop("model")
    before = state(model)
    with pytest.raises(ValueError, match=f"{re.escape(str(file))}.*{words}"):
        go(model, file, **changes)
    assert file.read_bytes() == raw
    assert same(state(model), before)


def test_a_schedule_may_change_after_the_step_of_the_file(tmp_path):
    go(mlp(), tmp_path / "c.npz")
    whole, part = mlp(), mlp()
    go(whole, None, schedule={20: 0.1}, steps=25)
    go(part, tmp_path / "c.npz", schedule={20: 0.1}, steps=25)
    assert same(state(part), state(whole))


def fails_from(number, error):
    """os.fsync that fails from its k-th call on."""
    calls, fsync = iter(range(10**6)), os.fsync

    def fake(descriptor):
        if next(calls) >= number:
            raise error
        fsync(descriptor)

    return fake


def test_a_full_disk_names_the_path_and_loses_neither_the_model_nor_the_file(tmp_path, monkeypatch):
    file, model, other = tmp_path / "c.npz", mlp(), mlp()
    monkeypatch.setattr(os, "fsync", fails_from(1, OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match=r"No space left on device.*the model holds the last step.*c\.npz") as caught:
        go(model, file)  # the first file is at step 5, the second would be at step 10
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(file)
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]
    assert _checkpoint.load(file)[1]["step"] == 5
    go(other, None, steps=10)
    assert same(state(model), state(other))


def test_a_folder_that_is_none_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"checkpoint cannot be written.*c\.npz"):
        go(mlp(), tmp_path / "file" / "c.npz")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission_is_an_os_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"checkpoint cannot be written.*c\.npz"):
        go(mlp(), tmp_path / "c.npz")


@pytest.mark.parametrize("after", ["loss", "gradient"])
def test_what_is_no_number_never_reaches_the_file(tmp_path, after):
    """The loss of step 7, or only its gradient, is no number; the file stays at step 6."""

    class Faulty(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = mlp(), 0

        def forward(self, x):
            outputs = self.inner(x)
            self.calls += self.training
            if self.calls == 8 and self.training:
                zero = (outputs - outputs).abs().sqrt()  # 0, of derivative 0 times infinity
                return outputs + (zero if after == "gradient" else zero / 0)
            return outputs

    file = tmp_path / "c.npz"
    with pytest.raises(FloatingPointError, match=r"is nan at step [78].*c.npz holds an earlier state"):
        go(Faulty(), file, checkpoint_every=2)
    arrays, note = _checkpoint.load(file)
    assert note["step"] == 6
    assert all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")
