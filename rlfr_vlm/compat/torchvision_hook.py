"""Let a torchvision built for CUDA torch import beside a CPU torch.

PyPI's torchvision wheel cannot load its extension beside a CPU torch, and `import torchvision` fails with "operator
torchvision::nms does not exist" (seen with torch 2.13.0, torchvision 0.28.0). The image transforms that Qwen2.5-VL's
processor uses are pure torch, so defining the missing operator schemas is enough. PyTorch's own CPU wheel is the
better solution: `scripts/setup.sh` prefers it and installs this hook only if it cannot be downloaded. Removable once
PyPI offers a CPU build of torchvision.

A `.pth` file loads the hook at the start of every interpreter of the environment, because child processes (such as
vLLM's) import torchvision before any code of ours runs. The hook does nothing until torchvision is first imported. To
remove it, delete the file `zz_rlfr_torchvision.pth` in the environment's site-packages.
"""

import importlib.abc
import importlib.machinery
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.library import Library

PTH_FILE = "zz_rlfr_torchvision.pth"  # sorts after the .pth file that makes an editable rlfr_vlm importable
PTH_LINE = (
    "import importlib.util as u; "
    "u.find_spec('rlfr_vlm') and __import__('rlfr_vlm.compat.torchvision_hook', fromlist=['x']).install()\n"
)
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list["Library"] = []  # keeps the libraries alive: collecting one removes its operators


class _RetryingLoader(importlib.abc.Loader):
    """Imports torchvision; if its extension fails to load, defines the missing operators and imports it again."""

    def __init__(self, inner: importlib.abc.Loader) -> None:
        self.inner = inner

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self.inner.exec_module(module)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            _define_schemas()
            for name in [n for n in sys.modules if n.startswith("torchvision.")]:
                del sys.modules[name]
            self.inner.exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds torchvision and replaces its loader by `_RetryingLoader`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "torchvision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _RetryingLoader(spec.loader)
        return spec


def _define_schemas() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _libraries.append(library)


def install() -> None:
    """Install the hook in this process."""
    if not is_installed():
        sys.meta_path.insert(0, _Finder())


def is_installed() -> bool:
    """Whether the hook is installed in this process."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def pth_path() -> Path:
    """Path of the `.pth` file that installs the hook in every interpreter of the environment."""
    return Path(sysconfig.get_paths()["purelib"]) / PTH_FILE


if __name__ == "__main__":  # called by scripts/setup.sh
    pth_path().write_text(PTH_LINE, encoding="utf-8")
    print(f"installed the torchvision import hook ({PTH_FILE})")
