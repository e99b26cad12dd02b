"""Two processes on the CPU compute what one does, and none waits for the dead."""

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from implicitreg import nets
from implicitreg.noise.msgd import train
from implicitreg.training import _processes

KINDS = ["gaussian_cov", "sgd", "minibatch_cov", "bernoulli"]
DTYPES = {"float64": 1e-10, "float32": 1e-6}


def problem():
    generator = np.random.default_rng(0)
    return generator.normal(size=(31, 5)), generator.integers(3, size=31)


def trained(kind, dtype, checkpoint=None, steps=8):
    model = nets.mlp((5, 4, 3), seed=1, dtype=getattr(torch, dtype))
    h = train(model, problem(), problem(), kind=kind, b=2 if kind == "bernoulli" else 5, B=11, eta=0.3, steps=steps,
              chunk=3, progress=False, device="cpu", checkpoint=checkpoint, timeout=40)  # fmt: skip
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    return np.concatenate([theta.numpy().astype(float), h.train_loss, h.test_accuracy])


def launched(*arguments):
    """Two processes of this file, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stderr=subprocess.PIPE, text=True,
                         env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    ]  # fmt: skip


def ended(processes, seconds):
    """Their exit codes and what they said, in this time."""
    until = time.monotonic() + seconds
    try:
        said = [p.communicate(timeout=max(0, until - time.monotonic()))[1] for p in processes]
    finally:
        for p in processes:
            p.kill()
            p.wait()
    return [p.returncode for p in processes], said


def test_two_processes_compute_what_one_does(tmp_path):
    codes, said = ended(launched("all", tmp_path), 120)
    assert codes == [0, 0], said
    for kind in KINDS:
        for dtype, tolerance in DTYPES.items():
            expected = trained(kind, dtype)
            for rank in (0, 1):
                found = np.load(tmp_path / f"{kind}-{dtype}-{rank}.npy")
                np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    assert (tmp_path / "c.npz").exists()
    assert not list(tmp_path.glob(".*"))
    went_on = np.load(tmp_path / "went-on-1.npy")
    np.testing.assert_allclose(went_on, trained("sgd", "float64", steps=12), rtol=0, atol=1e-10)


def test_when_one_process_dies_the_other_ends_with_an_error(tmp_path):
    survivor, dying = launched("dying", tmp_path)
    assert ended([dying], 120)[0] == [7]
    codes, said = ended([survivor], 60)
    assert codes[0] not in (0, 7), said
    assert "Error" in said[0]


def test_shares_cover_everything_once_and_are_nearly_equal():
    for m in range(20):
        for size in (1, 2, 3, 7):
            shares = [_processes.Processes(rank, size).share(m) for rank in range(size)]
            assert [i for share in shares for i in share] == list(range(m))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_no_group_is_made():
    assert _processes.joined(torch.device("cpu"), 1.0) == _processes.Processes(0, 1)
    assert not torch.distributed.is_initialized()


def main(what, folder):
    rank = os.environ["RANK"]
    if what == "dying":
        save, steps = nets.mlp, iter(range(100))

        def mlp(*args, **kwargs):
            model = save(*args, **kwargs)
            model.register_forward_pre_hook(lambda *_: os._exit(7) if rank == "1" and next(steps) == 20 else None)
            return model

        nets.mlp = mlp
        trained("sgd", "float64", steps=50)
        return
    for kind in KINDS:
        for dtype in DTYPES:
            np.save(f"{folder}/{kind}-{dtype}-{rank}.npy", trained(kind, dtype))
    trained("sgd", "float64", f"{folder}/c.npz")
    np.save(f"{folder}/went-on-{rank}.npy", trained("sgd", "float64", f"{folder}/c.npz", steps=12))
    with pytest.raises(ValueError, match="2 processes with direction"):
        trained("gld_iso", "float64")


if __name__ == "__main__":
    main(*sys.argv[1:])
