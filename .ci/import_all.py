"""Import every module of the parts named on the command line; print how many there are."""

import importlib
import pkgutil
import sys

OPTIONAL = {"aiortc", "anny", "moderngl", "tensorrt", "tensorrt_rtx", "openvino", "triton"}

count = 0
for part in sys.argv[1:]:
    package = importlib.import_module(f"prunus.{part}")
    for info in pkgutil.walk_packages(package.__path__, f"prunus.{part}."):
        try:
            importlib.import_module(info.name)
        except ModuleNotFoundError as error:
            if error.name not in OPTIONAL:
                raise
            print(f"{info.name}: skipped, needs {error.name}")
        count += 1
print(f"imported {count} modules of {', '.join(sys.argv[1:])}")
if count == 0:
    sys.exit("no module was found: the wheel is empty")
