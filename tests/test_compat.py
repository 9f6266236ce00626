"""The torchvision hook retries the import with the missing operators and otherwise has no effect."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlfr_vlm.compat.torchvision_hook import PTH_LINE

FAKE = """
import torch
if not torch._C._dispatch_has_kernel("torchvision::nms") and not hasattr(torch.ops.torchvision, "nms"):
    raise RuntimeError("operator torchvision::nms does not exist")
VALUE = 1
"""


def run(code: str, package: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(package), str(Path(__file__).parent.parent)])}
    return subprocess.run(
        [sys.executable, "-S", "-c", SITE + code], env=environment, capture_output=True, text=True, check=False
    )


# -S skips .pth files, so that only the hook under test is active; torch is found through sys.path.
SITE = f"import sys; sys.path += {[p for p in sys.path if p.endswith('site-packages')]!r}\n"


@pytest.fixture
def package(tmp_path):
    (tmp_path / "torchvision").mkdir()
    return tmp_path


@pytest.mark.parametrize("hook", [True, False])
def test_missing_operators_are_defined_only_with_the_hook(package, hook):
    (package / "torchvision" / "__init__.py").write_text(FAKE)
    process = run((PTH_LINE if hook else "") + "import torchvision; print(torchvision.VALUE)", package)
    assert (process.stdout.strip() == "1") == hook
    assert hook or "torchvision::nms does not exist" in process.stderr


def test_other_failures_pass_through(package):
    (package / "torchvision" / "__init__.py").write_text("raise RuntimeError('something else')")
    process = run(PTH_LINE + "import torchvision", package)
    assert "something else" in process.stderr


def test_hook_imports_nothing_heavy(package):
    process = run(PTH_LINE + "print('torch' in sys.modules)", package)
    assert process.stdout.strip() == "False"


def test_pth_line_is_harmless_without_the_package(tmp_path):
    process = subprocess.run(
        [sys.executable, "-S", "-c", PTH_LINE], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr


def test_this_environment_can_make_the_processor():
    import torchvision.transforms.v2  # noqa: F401
