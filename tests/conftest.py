"""Shared fixtures: tiny real policies, and the reference material that lies beside the project in CI."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.eval.vlm.fixtures import running, small_wemath, worker  # noqa: F401
from tests.trainer.fixtures import arguments, digits, make_trainer, text_digits, trainer_kwargs  # noqa: F401

hypothesis.settings.register_profile("patient", deadline=None)  # of a shared machine one cannot ask for speed
hypothesis.settings.load_profile("patient")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Before torch is imported. The policies are too small for threads, and test processes run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


# Files whose tests start engines or several processes: they come first, so that no worker ends with a long one.
LONG = (
    "trainer/vllm/test_patches.py",
    "end_to_end/train/test_many_processes.py",
    "end_to_end/train/test_resume.py",
    "end_to_end/train/test_serve_policy.py",
    "eval/judge/test_session.py",
    "end_to_end/eval/vlm/test_real_server.py",
    "end_to_end/eval/vlm/test_runs.py",
    "end_to_end/eval/test_killed_while_judging.py",
    "eval/test_judge_faults.py",
    "eval/test_policy_faults.py",
    "end_to_end/eval/test_keys_everywhere.py",
    "end_to_end/train/test_two_processes.py",
    "end_to_end/test_quickstart.py",
    "doctor/test_ranks.py",
    "grading/test_pool.py",
    "eval/vlmeval/test_worker.py",
    "end_to_end/train/test_every_family.py",
    "models/test_every_family.py",
    "end_to_end/train/test_train_and_fit.py",
    "eval/vlmeval/test_guard.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of `LONG` first; the order within a file stays."""
    order = {Path("tests", name): place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.relative_to(ROOT), len(LONG)))


imported = False  # gc.get_freeze_count() takes a tenth of a second, as it counts


def pytest_runtest_setup() -> None:
    """Leave out what transformers does again and again without any use here, once the trainer is imported.

    It collects garbage at the end of every training, which takes a second over the objects of torch, TRL and vLLM. And
    it makes text of every configuration that it loads for a log message, which takes a tenth of a second for a policy.
    """
    global imported
    if not imported and "trl.trainer.grpo_trainer" in sys.modules:
        from transformers import PreTrainedConfig

        gc.collect()
        gc.freeze()
        PreTrainedConfig.__repr__ = object.__repr__
        imported = True


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference tensors and data sets beside the project; a user's clone has none."""
    if not SHARED.is_dir():
        pytest.skip("needs the reference material in ../shared")
    return SHARED


@pytest.fixture(scope="session")
def processor() -> Any:
    """Qwen2.5-VL's processor with a tokenizer trained on the digits task."""
    from rlfr_vlm.data.digits import OPERATIONS, digit_rows
    from rlfr_vlm.quickstart.small_policy import build_processor

    questions = [f"<|im_start|>user\n{name}?<|im_end|>\n<|im_start|>assistant\n" for name in OPERATIONS]
    return build_processor(questions * 30 + [row["response"] for row in digit_rows("train", 100, 0)], 290)


@pytest.fixture(scope="session")
def make_policy(processor: Any) -> Callable[..., Any]:
    """Builds a tiny Qwen2.5-VL with random weights; the same seed gives the same weights."""
    from rlfr_vlm.quickstart.small_policy import PolicySize, build_policy

    def make(seed: int = 0, **sizes: int) -> Any:
        defaults = {
            "hidden_size": 32,
            "num_layers": 4,
            "num_heads": 2,
            "intermediate_size": 48,
            "vision_hidden_size": 32,
        }
        return build_policy(processor, PolicySize(**(defaults | sizes)), seed).eval()

    return make


@pytest.fixture(scope="session")
def make_text_policy(processor: Any) -> Callable[..., Any]:
    """Builds a tiny text-only Qwen2 or Llama with random weights for the same tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    def make(seed: int = 0, family: str = "qwen2") -> Any:
        torch.manual_seed(seed)
        tokenizer = processor.tokenizer
        config_class, model_class = {
            "qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM),
        }[family]  # fmt: skip
        config = config_class(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
            num_key_value_heads=2, intermediate_size=48, max_position_embeddings=256,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        )  # fmt: skip
        return model_class(config).eval()

    return make


@pytest.fixture
def text_tokenizer(processor: Any) -> Any:
    """The same vocabulary as a plain tokenizer with a chat template, as text-only models have it."""
    import copy

    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer._processor_class = None  # it forgets the processor it came from
    tokenizer.chat_template = (  # like Qwen2.5's, it dies of contents that are not strings
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


def pytest_sessionfinish(session: pytest.Session) -> None:
    """CI installs every optional part: there, a test that skips because one is missing is a test that is not run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = [str(report.longrepr) for report in (reporter.stats.get("skipped", []) if reporter else [])]
    missing = [reason for reason in skipped if "is not installed" in reason or "../shared" in reason]
    if os.environ.get("CI") == "true" and missing:
        reporter.write_line(f"{len(missing)} tests were skipped in CI, such as: {missing[0]}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
