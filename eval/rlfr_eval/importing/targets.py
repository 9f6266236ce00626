"""Find the benchmark that a file's answers are to: by the name that the user gives, else by the file's name."""

from pathlib import Path

from rlfr_eval.benchmarks.text import ROW_FILES, Benchmark, read_toml, resolve, shipped, suites
from rlfr_eval.benchmarks.vlm import VlmBenchmark, resolve_vlm, shipped_vlm
from rlfr_eval.benchmarks.vlm_presets import vlm_preset
from rlfr_eval.importing.entries import LM_EVAL, AnswerFile
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.grading.gym import is_gym_name


def dataset_names(named: str | None, lmu: Path) -> list[str]:
    """Return the names of sets by which a prediction file's name may end.

    Args:
        named: benchmark that the user names.
        lmu: VLMEvalKit's folder of TSV files.
    """
    known = [name for one in shipped_vlm().values() for name in (one.name, one.vlmeval)]
    own = [path.stem for path in lmu.glob("*.tsv")] if lmu.is_dir() else []
    return [*([named, Path(named).stem] if named else []), *known, *own]


def target_of(file: AnswerFile, named: str | None, preset: str, lmu: Path) -> Benchmark | VlmBenchmark:
    """Return the benchmark that a file's answers are to.

    Args:
        named: name or path that the user gives; None: the file's name tells.
        preset: preset under which a multimodal benchmark is scored.

    Raises:
        UserError: there is no such benchmark, or the file's name does not tell it.
    """
    name = named or file.task
    known = [*shipped(), *shipped_vlm()]
    if not name:
        raise UserError(
            f"{file.path}: its name does not say what it answers. Name the benchmark with --benchmark; known are "
            f"{', '.join(known)}, and files of your own."
        )
    if name in suites():
        raise UserError(f"{name} is a suite of {', '.join(suites()[name])}. Name one of them with --benchmark.")
    if _is_multimodal(name, file.format, lmu):
        return resolve_vlm([name], vlm_preset(preset), lmu)[0]
    if name in shipped() or is_gym_name(name) or name.endswith((".toml", *ROW_FILES)):
        return resolve([name])[0]
    if named:
        what = f"--benchmark {name!r} is no benchmark here.{nearest(name, known)}"
    else:
        what = f"{file.path} has answers to {name!r}, which is no benchmark here. Name ours with --benchmark."
    raise UserError(
        f"{what} Known are {', '.join(known)}, a set of VLMEvalKit whose NAME.tsv is in {lmu}, and files of your own."
    )


def _is_multimodal(name: str, tool: str, lmu: Path) -> bool:
    """Return whether a name is that of a multimodal benchmark."""
    if name.endswith(".toml"):
        return "vlmeval" in read_toml(Path(name))
    if name.endswith(".tsv"):
        return tool != LM_EVAL
    multimodal = {known for one in shipped_vlm().values() for known in (one.name, one.vlmeval)}
    return name in multimodal or (name not in shipped() and (lmu / f"{name}.tsv").is_file())
