"""Model families that cannot be trained, with the reason and what to use instead."""

from rlfr_vlm.errors import UserError

REFUSED = {
    "minicpmo": "MiniCPM-o",
    "minicpmv": "MiniCPM-V before 4.6",
    "kimi_vl": "Kimi-VL",
    "internvl_chat": "InternVL in the format of its authors",
    "molmo": "Molmo",
    "deepseek_vl_v2": "DeepSeek-VL2",
}
INSTEAD = {
    "internvl_chat": "Load the checkpoint whose name ends in -hf, which transformers carries",
}


def refuse_by_name(model_type: str | None) -> None:
    """Refuse a family by its name.

    Args:
        model_type: of the config.

    Raises:
        UserError: the family is one of `REFUSED`.
    """
    if model_type not in REFUSED:
        return
    raise UserError(
        f"{REFUSED[model_type]} (model_type {model_type!r}) cannot be trained: transformers has no class for it, and "
        "the code in its repository has another interface for images, which TRL does not call. "
        f"{INSTEAD.get(model_type, 'Use a family of the table in rlfr_vlm/models/README.md')}."
    )
