"""Whether torchvision imports, and whether our import hook is what lets it."""

import importlib
import sys

from rlfr_vlm.compat import torchvision_hook
from rlfr_vlm.doctor.checks import Check, fail, ok, warn

TOPIC = "torchvision"
INSTALL_HOOK = "python -m rlfr_vlm.compat.torchvision_hook"


def check_torchvision() -> Check:
    """Import it here, with whatever hook this process started with."""
    hooked = torchvision_hook.is_installed()
    place = f"{torchvision_hook.PTH_FILE} in this environment" if torchvision_hook.pth_path().exists() else "a caller"
    try:
        version = importlib.import_module("torchvision").__version__
    except (ImportError, OSError, RuntimeError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "torchvision::nms" in text and not hooked:
            return fail(TOPIC, f"does not import ({text}): it was built for another torch than the one installed",
                        f"run `{INSTALL_HOOK}` or `bash scripts/setup.sh`")  # fmt: skip
        return fail(TOPIC, f"does not import: {text}", "install the torchvision that fits this torch: `python -m pip "
                    "install --force-reinstall --constraint constraints.txt torchvision`")  # fmt: skip
    if not hooked:
        return ok(TOPIC, f"{version} imports; no import hook, and none is needed")
    if not torchvision_hook._libraries:
        return ok(TOPIC, f"{version} imports; the import hook is in place (by {place}) and has nothing to do")
    found = (f"{version} imports thanks to the import hook (by {place}): its extension was built for another torch "
             "and does not load; image transforms work, operators such as nms do not")  # fmt: skip
    torch = sys.modules.get("torch")
    if torch is not None and torch.version.cuda:
        return warn(TOPIC, found, "beside a CUDA torch the fitting torchvision can be installed: `python -m pip "
                    "install --force-reinstall --constraint constraints.txt torchvision`")  # fmt: skip
    return ok(TOPIC, found)
