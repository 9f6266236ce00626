"""The table of families in rlfr_vlm/models/README.md, from the structures that the tests run over.

python -m tests.models.families_table --write     puts it into the README
"""

import re
import sys
from pathlib import Path

from tests.end_to_end.train.test_videos import EVERY_RUN as IN_EVERY_RUN
from tests.end_to_end.train.test_videos import FAMILIES
from tests.models.small_families import EVERY_RUN, TEXTS, VISION, build_processor
from tests.models.test_pixel_limits import KEPT

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "rlfr_vlm/models/README.md"
BLOCK = re.compile(r"(?<=<!-- families -->\n).*?(?=<!-- end families -->)", re.DOTALL)
# Families whose steps on videos are tested (tests/end_to_end/train/test_videos.py).
VIDEOS = dict.fromkeys(IN_EVERY_RUN, "every run of the tests") | {
    name: "slow tests" for name in FAMILIES if name not in IN_EVERY_RUN
}
# Families whose rollouts ran on vLLM in a test (tests/trainer/vllm/test_patches.py).
ON_VLLM = dict.fromkeys(("Qwen2.5-VL", "Qwen3-VL", "InternVL", "Idefics3"), "in the trainer's process, on a CPU")


def vision_row(name: str) -> str:
    from rlfr_vlm.models import family_of_processor

    processor = build_processor(VISION[name])
    shrinks = family_of_processor(processor).image_grid(processor).shrinks
    kept = [option for option in (0, 1) if any(limits[option] for _, _, limits, _ in KEPT.get(name, []))]
    options = ("image_min_pixels", "image_max_pixels")
    limits = " and ".join(f"`{options[option]}`" for option in kept) or "refused"
    images = "yes" if shrinks else "refused"
    videos = VIDEOS.get(name, "refused")
    assert family_of_processor(processor).takes_videos == (name in VIDEOS)
    model_type, vllm = VISION[name].model_type, ON_VLLM.get(name, "untested")
    cells = (name, f"`{model_type}`", images, limits, videos, shares(model_type), runs(name), vllm)
    return f"| {' | '.join(cells)} |\n"


def shares(model_type: str) -> str:
    from rlfr_vlm.models import FAMILIES as KNOWN

    return "yes" if any(model_type in family.shares_prompts for family in KNOWN) else "no"


def runs(name: str) -> str:
    return "every run of the tests" if name in EVERY_RUN else "slow tests"


def families_table() -> str:
    """The table of vision-language families, and the one of text-only families."""
    head = "| family | `model_type` | `long_prompts: downscale` | pixel limits "
    head += "| videos tested in | shares prompts | whole run tested in | vLLM |\n"
    head += "|---|---|---|---|---|---|---|---|\n"
    texts = "| family | `model_type` | shares prompts | whole run tested in | vLLM |\n|---|---|---|---|---|\n"
    for name, family in TEXTS.items():
        texts += f"| {name} | `{family.model_type}` | {shares(family.model_type)} | {runs(name)} | untested |\n"
    return head + "".join(map(vision_row, VISION)) + "\n" + texts


if __name__ == "__main__" and "--write" in sys.argv:
    README.write_text(BLOCK.sub(lambda _: families_table(), README.read_text(encoding="utf-8")), encoding="utf-8")
