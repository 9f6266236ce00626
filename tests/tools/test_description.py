"""Length of the descriptions of tools: that of what the chat template really adds."""

import copy

from rlfr_vlm.data.encode import encode_prompts
from rlfr_vlm.tools import calculator
from rlfr_vlm.tools.description import described_tokens
from rlfr_vlm.tools.zoom import Zoom
from rlfr_vlm.trainer.tool_calls import prepare_template


def test_tokens_are_those_that_a_prompt_with_images_grows_by(processor, digits):
    processor = copy.deepcopy(processor)  # the template is changed
    prepare_template(processor)
    assert described_tokens(processor, {}) == 0
    rows, tools = [digits[0], digits[1]], [calculator, Zoom().zoom]
    plain = encode_prompts(processor, rows).attention_mask.sum(dim=1)
    described = encode_prompts(processor, rows, {"tools": tools}).attention_mask.sum(dim=1)
    added = described_tokens(processor, {"tools": [calculator], "environment_factory": Zoom})
    assert added > 100 and (described - plain).tolist() == [added, added]
    assert 0 < described_tokens(processor, {"tools": [calculator]}) < added
