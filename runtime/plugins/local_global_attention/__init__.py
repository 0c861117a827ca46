"""The plugin of `prunus::LocalGlobalAttention` nodes: a fused kernel instead of standard operators.

``kernel.py`` is the kernel, ``tiles.py`` its sizes, ``geometry.py`` the numbers that it is launched
with, ``launch.py`` runs it on PyTorch tensors, ``build.py`` compiles it ahead of time into a
library that TensorRT loads (sources in ``csrc/``). Only those that compile or run it need triton.
"""

VERSION = "1"
NAMESPACE = "prunus"
NAME = "LocalGlobalAttention"
LIBRARY = "libprunus_local_global_attention.so"
