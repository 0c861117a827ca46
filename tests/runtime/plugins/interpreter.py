"""Child process that runs the kernel in Triton's interpreter: requests on stdin, results on stdout.

The interpreter is chosen while triton is imported, and other tests may have imported it already.
"""

import os
import pickle
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from prunus.runtime.errors import PrunusError
from prunus.runtime.plugins.local_global_attention.launch import attend
from prunus.runtime.plugins.local_global_attention.tiles import Tile

torch.set_num_threads(1)


def answer(request):
    dtype = getattr(torch, request["dtype"])
    inputs = {}
    for name, array in request["inputs"].items():
        tensor = torch.from_numpy(array)
        inputs[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    tile = Tile(*request["tile"]) if request["tile"] else None
    try:
        y = attend(inputs, **request["attributes"], tile=tile)
    except PrunusError as error:
        return error
    assert y.dtype == dtype
    return y.to(torch.float64).numpy()


if __name__ == "__main__":
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever is printed must not mix in
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        pickle.dump(answer(request), pipe)
        pipe.flush()
