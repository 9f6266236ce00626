"""GLM-4.1V, GLM-4.5V and GLM-4.6V: patches and grids as Qwen2-VL has them, with limits on the pixels of two frames."""

from typing import TYPE_CHECKING

from rlfr_vlm.models.image_tokens import CountedGrid, tokens_by_size
from rlfr_vlm.models.qwen_vl import PatchGridFamily

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass


class GLMVFamily(PatchGridFamily):
    """GLM-4.1V, GLM-4.5V and GLM-4.6V."""

    name = "GLM-4.1V, GLM-4.5V and GLM-4.6V"
    model_types = ("glm4v", "glm4v_moe", "glm46v")
    processors = ("Glm4vProcessor", "Glm46VProcessor")
    token_pattern = r"<\|(?:begin|end)_of_(?:image|video)\|>"
    frames = 2

    def image_grid(self, processing_class: "ProcessingClass") -> CountedGrid:
        processor = processing_class.image_processor
        return CountedGrid(
            lambda width, height: tokens_by_size(processing_class, width, height),
            shrinks=True,
            side=processor.patch_size * processor.merge_size,
        )
