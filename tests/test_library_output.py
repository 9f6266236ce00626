"""Library notices are hidden only when asked for, and a user's own warnings never."""

import subprocess
import sys
import warnings

import pytest

from rlfr_vlm.library_output import silence_libraries


@pytest.mark.parametrize(
    ("module", "category", "shown"),
    [
        ("trl.trainer.grpo_trainer", FutureWarning, False),
        ("torch", FutureWarning, False),
        ("my_rewards", FutureWarning, True),
        ("torch_extension", FutureWarning, True),
        ("transformers.modeling_utils", UserWarning, True),
    ],
)
def test_only_future_warnings_of_libraries_are_hidden(module, category, shown):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        silence_libraries()
        warnings.warn_explicit("deprecated", category, "file.py", 1, module=module)
    assert bool(caught) == shown


def test_the_pin_memory_warning_is_hidden_whoever_raises_it():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        silence_libraries()
        message = "'pin_memory' argument is set as true but no accelerator is found"
        warnings.warn_explicit(message, UserWarning, "file.py", 1, module="accelerate.data_loader")
        warnings.warn_explicit("pin_memory of my own", UserWarning, "file.py", 1, module="my_data")
    assert [str(warning.message) for warning in caught] == ["pin_memory of my own"]


def test_importing_the_module_changes_no_filter():
    code = "import warnings\nfilters = list(warnings.filters)\nimport rlfr_vlm.library_output\n"
    subprocess.run([sys.executable, "-c", code + "assert warnings.filters == filters"], check=True)
