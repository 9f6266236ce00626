"""The shape of the project: import direction, file trees, what the documents and the scripts say."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.tree import BLOCK, TREES, tree

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rlfr_vlm"
MODULES = sorted(PACKAGE.rglob("*.py"))
HARNESS = ROOT / "eval" / "rlfr_eval"
HARNESS_MODULES = sorted(HARNESS.rglob("*.py"))
# What the harness may take from the training package: the bottom, which knows nothing of training.
SHARED_MODULES = {
    "errors",
    "files",
    "stats",
    "provenance",
    "redaction",
    "benchmark_scores",
    "grading",
    "command_line",
    "completion",
    "page",
    "env_settings",
    "servers",
    "judging",
}
SHARED_FILES = {"data.read", "data.rows"}  # data sets as files, and their rows

# A module may import from its own layer and the ones before it. The longest prefix in the table decides.
LAYERS = (
    {"errors", "files", "stats", "group_auc", "retest", "answer_position", "provenance", "redaction", "sources"}
    | {"benchmark_scores"},
    {"options", "flow_options", "methods", "library_output", "compat", "command_line", "completion", "page", "steps"}
    | {"env_settings"},
    {"grading", "servers", "judging", "flow", "shaping", "visual_dependency", "curriculum", "doctor"},
    {"data", "models", "pretrained", "rewards", "policy", "four_bit", "tools"},
    {"config_file", "evaluate", "checkpoint", "export", "model_card", "prompt_lengths"},
    {"deviation", "correctness_auc", "trainer", "meta_policy", "plan", "starting_config", "sampling"},
    {"report"},
    {"quickstart", "sweep", "commands", "cli"},
)
LIGHT = {
    "numpy",
    "torch",
    "transformers",
    "trl",
    "datasets",
    "accelerate",
    "sklearn",
    "matplotlib",
    "yaml",
    "openai",
    "tqdm",
}


def layer_of(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if name.split(".")[0] in layer)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, top_level_only: bool = False) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_run_one_way(path):
    name = module_name(path)
    if name == "":  # the public names come from every layer, when they are used
        return
    own = layer_of(name)
    for imported in imports_of(path):
        if imported.startswith("rlfr_vlm."):
            target = imported.removeprefix("rlfr_vlm.")
            assert layer_of(target) <= own, f"{name} imports {target}"


@pytest.mark.parametrize("path", HARNESS_MODULES, ids=lambda p: str(p.relative_to(HARNESS)))
def test_the_harness_takes_only_the_bottom_of_the_training_package(path):
    for imported in imports_of(path):
        if imported.startswith("rlfr_vlm."):
            name = imported.removeprefix("rlfr_vlm.")
            assert name.split(".")[0] in SHARED_MODULES or name in SHARED_FILES, imported
        # VLMEvalKit has a process of its own, whose files are the only ones that import it
        forbidden = ("trl", "vllm") if path.parent.name == "worker" else ("trl", "vllm", "vlmeval")
        assert imported.split(".")[0] not in forbidden, imported
        assert imported.split(".")[0] != "openai"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_training_never_imports_the_harness(path):
    assert not [name for name in imports_of(path) if name.split(".")[0] == "rlfr_eval"]
    assert "openai" not in imports_of(path) or path.name == "endpoint.py"


@pytest.mark.parametrize("path", sorted((PACKAGE / "flow").glob("*.py")), ids=module_name)
def test_flow_maths_knows_nothing_of_trl(path):
    allowed = {"torch", "safetensors", "rlfr_vlm"}
    standard = {"math", "json", "pickle", "dataclasses", "collections", "pathlib", "typing", "hashlib", "logging"}
    assert {name.split(".")[0] for name in imports_of(path)} <= allowed | standard


@pytest.mark.parametrize("folder", [
    PACKAGE / "grading", PACKAGE / "servers", PACKAGE / "judging", PACKAGE / "commands", HARNESS / "commands",
])  # fmt: skip
def test_light_modules_import_nothing_heavy_at_the_top(folder):
    alone = [
        PACKAGE / "cli.py",
        PACKAGE / "options.py",
        PACKAGE / "errors.py",
        PACKAGE / "stats.py",
        HARNESS / "cli.py",
    ]
    for path in [*folder.glob("*.py"), *alone]:
        assert not {name.split(".")[0] for name in imports_of(path, top_level_only=True)} & LIGHT, path


@pytest.mark.parametrize("path", [*MODULES, *HARNESS_MODULES], ids=lambda p: p.stem)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda p: p.name)
def test_scripts_are_valid_and_have_a_header(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    head = script.read_text().splitlines()
    assert head[0] == "#!/usr/bin/env bash" and head[1].startswith("# ")


def test_setup_refuses_unknown_options_with_one_message():
    done = subprocess.run(
        ["bash", "scripts/setup.sh", "--nope"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "setup: unknown option --nope; see the head of scripts/setup.sh"


def test_constraints_fit_the_declared_ranges():
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (Requirement(text) for group in groups for text in group):
        if requirement.name in pins:
            assert requirement.specifier.contains(pins[requirement.name]), requirement


DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "scripts").glob("*.md")),
    *sorted((ROOT / "rlfr_vlm").rglob("*.md")),
    ROOT / "benchmarks/README.md",
    ROOT / "eval/README.md",
    ROOT / "tests/README.md",
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_links_named_in_documents_exist(document):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (document.parent / target).exists(), target
    for path in re.findall(r"(?:scripts|benchmarks|rlfr_vlm|eval|tests)/[\w./-]*\w\.(?:sh|py|yaml|md|toml)", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_flags_and_commands_named_in_documents_exist(document):
    import dataclasses
    import importlib

    from rlfr_eval.cli import COMMANDS as EVAL_COMMANDS
    from rlfr_vlm.cli import COMMANDS
    from rlfr_vlm.command_line import help_of
    from rlfr_vlm.options import ScriptArguments
    from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    text = document.read_text(encoding="utf-8")
    for command in re.findall(r"(?:\brlfr|rlfr_vlm\.cli) ([a-z-]+)(?= -| --|`)", text):
        assert command in COMMANDS, command
    for command in re.findall(r"\brlfr-eval ([a-z]+)(?= |`|$)", text):
        assert command in EVAL_COMMANDS, command
    known = {f.name for cls in (ScriptArguments, RLFRConfig, FlowFitConfig) for f in dataclasses.fields(cls)}
    modules = map(importlib.import_module, [*COMMANDS.values(), *EVAL_COMMANDS.values()])
    helps = [help_of(module) for module in modules]
    scripts = [*(ROOT / "scripts").glob("*.sh"), *(ROOT / "benchmarks/speed").glob("*.py")]
    elsewhere = "\n".join([*helps, *(script.read_text() for script in scripts)])
    for flag in re.findall(r"(?<![\w-])--([a-z][a-z_-]+)", text):
        assert flag in known | {"config", "resume", "help", "version", "num_processes"} or f"--{flag}" in elsewhere, (
            flag
        )


@pytest.mark.parametrize(("document", "package"), TREES.items())
def test_trees_show_every_module_with_its_summary(document, package):
    """Run `python -m tests.tree --write` when it fails."""
    shown = BLOCK.search((ROOT / document).read_text(encoding="utf-8"))
    assert shown is not None and shown[0] == tree(package)
    assert all(line.split("  ")[-1].strip() for line in shown[0].splitlines())


def test_readme_is_short():
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 150
