"""The grid's ranking, its two halves, and the yardsticks, on scores made up by hand."""

import numpy as np
import pytest
import torch

from rlfr_vlm.deviation import ResponseDeviation, TokenMeasures
from rlfr_vlm.evaluate import Response
from rlfr_vlm.report.grid import Cell, FieldMeasurement, cell_scores, grid, grid_lines, recommendation
from rlfr_vlm.report.yardsticks import head_scores, yardsticks


def responses_of(prompts: int) -> tuple[list[Response], list[int]]:
    """One wrong and one right response to each prompt."""
    responses = [Response([1, 2, 3], "", score) for _ in range(prompts) for score in (0.0, 1.0)]
    return responses, [prompt for prompt in range(prompts) for _ in range(2)]


def measurement(values: list[list[float]], name: str = "field") -> FieldMeasurement:
    """One timestep; `values` has one row per response with the score of each layer, equal at all tokens."""
    deviations = [
        ResponseDeviation(torch.tensor(row)[None, :, None].repeat(1, 1, 3), torch.ones(3, dtype=torch.bool), 1)
        for row in values
    ]
    return FieldMeasurement(name, "group", [2, 4], deviations)


def test_the_informative_layer_is_found_and_confirmed():
    """Layer 4 is higher for every wrong response, layer 2 for none."""
    responses, groups = responses_of(20)
    cells = grid([measurement([[0.0, 1.0], [1.0, 0.0]] * 20)], [0.8], responses, groups)
    assert len(cells) == 15  # layers 2, 4 and both, five statistics
    best = cells[0]
    assert best.cell.layers == (4,) and best.chosen_on.value == 1.0 and best.confirmed_on.groups == 10
    found = recommendation(cells)
    assert found["confirmed"] and found["layers"] == [4] and found["auc"] == 1.0 and found["cells"] == 15
    assert "confirmed on the other half" in grid_lines(cells)[-1]
    both = next(one for one in cells if one.cell.layers == (2, 4) and one.cell.statistic == "mean")
    assert both.overall.value == 0.5  # the layers cancel


def test_pairs_of_like_length_have_a_column_of_their_own():
    """The wrong response to the first ten prompts is long, and above; that of the others is not long, and below."""
    groups = [prompt for prompt in range(20) for _ in range(2)]
    responses = [
        Response([1] * (30 if prompt < 10 and score == 0.0 else 3), "", score)
        for prompt in range(20) for score in (0.0, 1.0)
    ]  # fmt: skip
    values = [[1.0, 1.0], [0.0, 0.0]] * 10 + [[0.0, 0.0], [1.0, 1.0]] * 10
    best = grid([measurement(values)], [0.8], responses, groups)[0]
    assert best.overall.value == 0.5 and best.like_length.value == 0.0 and best.like_length.groups == 10
    lines = grid_lines([best])
    assert lines[2].endswith("| responses of like length |") and lines[4].count("|") == 6
    assert best.to_dict()["like_length"]["pairs"] == 10


def test_a_cell_that_is_good_on_one_half_only_is_not_confirmed():
    """Wrong responses are above on even prompts, and below on odd ones."""
    responses, groups = responses_of(20)
    values = [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]] * 10
    cells = grid([measurement(values)], [0.8], responses, groups)
    assert (cells[0].chosen_on.value, cells[0].confirmed_on.value) == (1.0, 0.0)
    assert not recommendation(cells)["confirmed"]
    assert "not confirmed" in grid_lines(cells)[-1]


def test_statistics_of_ragged_responses():
    short = ResponseDeviation(torch.tensor([[[1.0, 3.0]]]), torch.tensor([True, True]), 0)
    long = ResponseDeviation(torch.tensor([[[1.0, 2.0, 6.0, 0.0]]]), torch.tensor([True, True, True, False]), 1)
    scores = cell_scores(FieldMeasurement("f", "token", [7], [short, long]), [0.8])
    assert {cell.statistic: values.tolist() for cell, values in scores.items()} == {
        "mean": [2.0, 3.0],
        "max": [3.0, 6.0],
        "last": [2.0, 3.0],
        "before_answer": [1.0, 2.0],
        "end_minus_start": [0.0, 0.0],
    }
    assert all(cell == Cell("f", "token", 0.8, (7,), cell.statistic) for cell in scores)


def latents(prompts: int) -> np.ndarray:
    """The first channel says right or wrong, the second which prompt."""
    return np.array([[sign, prompt] for prompt in range(prompts) for sign in (1.0, -1.0)])


def test_linear_heads_are_tested_on_prompts_that_they_have_not_seen():
    responses, groups = responses_of(10)
    scores = head_scores(latents(10), responses, groups)
    assert all(score > 0 for score in scores[::2]) and all(score < 0 for score in scores[1::2])
    # what is known of a prompt only, here which of its responses is wrong by chance, cannot help
    alike = [Response([1], "", float(number % 2)) for number in range(20)]
    only_prompts = np.repeat(np.arange(10.0), 2)[:, None]
    unseen = head_scores(only_prompts, alike, groups)
    assert all(unseen[i] == pytest.approx(unseen[i + 1]) for i in range(0, 20, 2))
    assert head_scores(latents(4), *responses_of(4)) is None  # fewer prompts than folds


def test_yardsticks_by_hand():
    """Wrong responses: longer, less probable, of higher entropy, less dependent on the image."""
    responses, groups = responses_of(6)
    deviations = []
    for wrong, response in zip([True, False] * 6, responses, strict=True):
        response.ids = [1] * (4 if wrong else 3)
        level = torch.full((3,), 2.0 if wrong else 1.0)
        measures = TokenMeasures(level, -level, torch.ones(1, 3), torch.tensor([[level[0], 0.0]]), 3 - level)
        deviations.append(ResponseDeviation(torch.ones(1, 1, 3), torch.ones(3, dtype=torch.bool), 0, measures))
    rows = yardsticks(deviations, responses, groups, [9])
    names = ["length", "low mean log-prob", "mean entropy", "low visual dependency", "linear head on layer 9"]
    assert [row["name"] for row in rows] == names
    assert all(row["within_groups"]["auc"] == 1.0 for row in rows)
    assert all(row["like_length"]["auc"] is None for row in rows)  # 3 and 4 tokens are not alike
    plain = [ResponseDeviation(one.deviations, one.mask) for one in deviations]
    assert [row["name"] for row in yardsticks(plain, responses, groups, [9])] == ["length"]
