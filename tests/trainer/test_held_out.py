"""The line that tells held-out accuracy."""

import math

from rlfr_vlm.trainer.held_out import describe_evaluation

# 10 of 20 and 5 of 20 right; Wilson's intervals with z = 1.96
METRICS = {
    "eval_rows": 20.0, "eval_greedy": 0.5, "eval_greedy_low": 0.299, "eval_greedy_high": 0.701,
    "eval_greedy_undecided": 0.0, "eval_sampled": 0.25, "eval_sampled_low": 0.112, "eval_sampled_high": 0.469,
    "eval_sampled_undecided": 0.0,
}  # fmt: skip


def test_it_counts_rows_and_undecided_answers():
    start = "held-out accuracy (n = 20): greedy 0.500 [0.299, 0.701]"
    assert describe_evaluation(METRICS) == f"{start}; sampled 0.250 [0.112, 0.469]; none undecided"
    some = METRICS | {"eval_sampled_undecided": 0.05}
    assert describe_evaluation(some) == f"{start}; sampled 0.250 [0.112, 0.469], 5.0% undecided"
    nothing = METRICS | {"eval_greedy": math.nan, "eval_greedy_undecided": 1.0}
    assert "greedy nothing decided, 100.0% undecided; sampled" in describe_evaluation(nothing)
