"""`import rlfr_vlm` is light; every public name is there when it is used."""

import subprocess
import sys

import pytest

import rlfr_vlm
from tests.trainer.launching import environment


@pytest.mark.parametrize("name", rlfr_vlm.__all__)
def test_public_names_exist_and_are_documented(name):
    value = getattr(rlfr_vlm, name)
    assert value.__doc__ and value.__name__ == name
    assert name in dir(rlfr_vlm)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'rlfr_vlm' has no attribute 'nothing'"):
        _ = rlfr_vlm.nothing


def test_importing_loads_no_torch_and_changes_no_global_state():
    code = (
        "import logging, sys, warnings\n"
        "filters = list(warnings.filters)\n"
        "import rlfr_vlm\n"
        "assert not {'torch', 'transformers', 'trl', 'datasets', 'numpy'} & sys.modules.keys()\n"
        "assert warnings.filters == filters\n"
        "from tests.trainer.launching import skip_unused_parts\n"
        "skip_unused_parts()\n"  # importing vLLM takes 8 s
        "import trl.trainer.grpo_trainer\n"
        "filters, logger = list(warnings.filters), logging.getLogger('trl.trainer.grpo_trainer')\n"
        "rlfr_vlm.RLFRTrainer\n"
        "assert warnings.filters == filters and not logger.filters\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
