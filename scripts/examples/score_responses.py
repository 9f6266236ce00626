"""Score given responses with a flow field: the deviation of each token, without training.

python scripts/examples/score_responses.py FIELD_FOLDER      (fit one with scripts/examples/fit_flow.py)
"""

import sys

from rlfr_vlm import load_field, response_deviations
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.evaluate import Response
from rlfr_vlm.options import DataOptions
from rlfr_vlm.policy import load_model_and_processor
from rlfr_vlm.quickstart.warm_start import WarmStartRecipe, cached_policy

field, spec = load_field(sys.argv[1] if len(sys.argv) > 1 else "outputs/examples/flow")
folder, _ = cached_policy(WarmStartRecipe(steps=30, rows=1024))
policy, processor = load_model_and_processor(str(folder), DataOptions())

row = load_rows("digits", limit=1)[0]
texts = [rf"1 + 2 = 3. \boxed{{{row['answer']}}}", "I cannot read the digits."]
tokenizer = processor.tokenizer
responses = [Response([*tokenizer(text)["input_ids"], tokenizer.eos_token_id], text, None) for text in texts]

for text, scores in zip(
    texts, response_deviations(policy, processor, [row, row], responses, field, spec), strict=True
):
    print(f"{text!r}: mean deviation {scores.mean:.3f}, largest {scores.max:.3f}")
