"""Lists of methods, and the settings that only one part of a method reads."""

import dataclasses

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.flow_options import FlowOptions
from rlfr_vlm.options import METHOD_PARTS, VisualOptions

# Setting -> the part that reads it. `RLFRConfig` refuses these where the method lacks the part.
REFUSED_ELSEWHERE = {"flow_coef": "rlfr", "flow_path": "rlfr", "entropy_alpha": "entropy"}
READ_BY_ALL = {"flow_accept_threshold"}  # above it a response is right, in every method


def split_methods(text: str) -> tuple[str, ...]:
    """Return the methods of a list with commas, each once.

    Raises:
        UserError: a part of a method is not known.

    >>> split_methods("rlvr,rlfr+rlpr,rlvr")
    ('rlvr', 'rlfr+rlpr')
    """
    methods = tuple(dict.fromkeys(method.strip() for method in text.split(",")))
    for method in methods:
        if unknown := set(method.split("+")) - set(METHOD_PARTS):
            name = sorted(unknown)[0]
            raise UserError(
                f"--methods has {name!r}; known are {', '.join(METHOD_PARTS)}.{nearest(name, METHOD_PARTS)}"
            )
    return methods


def part_that_reads(name: str) -> str | None:
    """Return the only part of a method that reads a setting; None if every method may read it.

    >>> part_that_reads("flow_coef"), part_that_reads("visual_share"), part_that_reads("learning_rate")
    ('rlfr', 'visual', None)
    """
    if name in READ_BY_ALL:
        return None
    if name in {field.name for field in dataclasses.fields(FlowOptions)}:
        return "rlfr"
    if name in {field.name for field in dataclasses.fields(VisualOptions)}:
        return "visual"
    if name.startswith("rlpr_"):
        return "rlpr"
    return "entropy" if name in ("entropy_alpha", "entropy_kappa") else None


def reads(method: str, name: str) -> bool:
    """Return whether a method may read a setting.

    >>> reads("rlfr+rlpr", "flow_coef"), reads("rlvr", "flow_coef"), reads("rlvr", "learning_rate")
    (True, False, True)
    """
    return part_that_reads(name) in (None, *method.split("+"))
