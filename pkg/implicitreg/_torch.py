"""PyTorch, or an error that says how to install it."""

try:
    import torch as torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "this part of implicitreg needs PyTorch, which is not installed: pip install torch (on Linux, without CUDA: "
        "pip install torch --index-url https://download.pytorch.org/whl/cpu)",
        name="torch",
    ) from error
