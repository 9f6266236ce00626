"""`rlfr inspect`: tables against closed forms, and the whole command on a tiny policy and field."""

import json

import pytest
import torch

from rlfr_vlm.cli import main
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.deviation import ResponseDeviation, response_deviations
from rlfr_vlm.evaluate import Response
from rlfr_vlm.flow import FIELD_FOLDER, FlowSpec, save_field
from rlfr_vlm.flow.storage import build_field
from rlfr_vlm.report.separation import auc_table, norm_table, timestep_table
from rlfr_vlm.stats import auc_interval
from tests.chromium import chromium

LAYERS = (1, 2, 3)


def deviation(values, norms=1.0):
    """Deviation from `values` (S, L), equal at two tokens; a third token has no partner."""
    tensor = torch.tensor(values).unsqueeze(-1).expand(-1, -1, 3) * torch.tensor([1.0, 1.0, 0.0])
    mask, norm = torch.tensor([True, True, False]), torch.full((tensor.shape[1], 3), norms)
    return ResponseDeviation(tensor, mask, norms=norm)


def test_auc_by_hand():
    """Layer 1 ranks both wrong responses above the right one, layer 2 only one; in their mean the other ties."""
    deviations = [deviation(values) for values in ([[1.0, 4.0]], [[2.0, 5.0]], [[3.0, 2.0]], [[9.0, 9.0]])]
    responses = [Response([1], "", score) for score in (1.0, 0.0, 0.0, None)]
    rows = auc_table(deviations, responses, [1, 2], [0.8], [0, 0, 0, 0])
    table = {(row["layer"], row["statistic"]): row for row in rows}
    assert [table[layer, "mean"]["auc"] for layer in (1, 2, "all")] == [1.0, 0.5, 0.75]
    assert table["all", "max"]["n_wrong"] == 2 and table["all", "max"]["n_right"] == 1
    assert all(row["ci95"] is None for row in table.values())  # one right response has no interval
    more = [Response([1], "", score) for score in (1.0, 0.0, 0.0, 1.0)]
    again = {(row["layer"], row["statistic"]): row for row in auc_table(deviations, more, [1, 2], [0.8], [0, 1, 0, 1])}
    # layer 1: wrong 2, 3 above right 1, 9: 2 of 4
    within = again[1, "mean"]["within_groups"]
    # same prompt: wrong 3 above right 1; wrong 2 below right 9
    assert (within["auc"], within["groups"], within["pairs"]) == (0.5, 2, 2)
    assert again[1, "mean"]["auc"] == 0.5 and again[1, "mean"]["ci95"] == list(auc_interval(0.5, 2, 2))
    alike = auc_table(deviations[:1], responses[:1], [1, 2], [0.8], [0])
    assert all(row["auc"] is None and row["ci95"] is None for row in alike)


def test_timesteps_and_norms_by_hand():
    values = torch.tensor([[[1.0, 3.0]], [[8.0, 8.0]]])
    measured = ResponseDeviation(values, torch.tensor([True, True]), norms=torch.tensor([[3.0, 5.0]]))
    responses = [Response([1, 2], "", 1.0)]
    aucs = auc_table([measured], responses, [1], [0.5, 0.8], [0])
    table = timestep_table([measured], [0.5, 0.8], aucs)
    half, rewarding = table
    assert (half["weight"], half["loss"], half["deviation"]) == (1.0, 2.0, 2.0)
    assert half["spread"] == pytest.approx(2**0.5 / 2) and half["auc"] is None
    assert rewarding["weight"] == pytest.approx(4) and rewarding["loss"] == pytest.approx(2.0)
    assert rewarding["spread"] == 0.0
    expected = {"layer": 1, "mean": 4.0, "p5": pytest.approx(3.1), "median": 4.0, "p95": pytest.approx(4.9)}
    assert norm_table([measured], [1]) == [expected]


@pytest.fixture
def field(make_policy):
    policy = make_policy()
    spec = FlowSpec.for_policy(policy.config.get_text_config(), "tiny", 1, (0.25, 0.5, 0.75))
    torch.manual_seed(0)
    return policy, build_field(spec), spec


def test_a_full_pass_gives_the_deviations_of_a_shallow_pass(field, processor):
    policy, network, spec = field
    rows = [load_rows("digits", limit=4)[i] for i in range(4)]
    responses = [Response([20, 21, 22, 2][: 2 + index % 3], "", 1.0) for index in range(4)]
    arguments = (policy, processor, rows, responses, network, spec)
    full = response_deviations(*arguments, batch_size=4, with_entropies=True, with_norms=True)
    shallow = response_deviations(*arguments, batch_size=4)
    for one, other, response in zip(full, shallow, responses, strict=True):
        length = len(response.ids)
        assert tuple(one.deviations.shape) == tuple(other.deviations.shape) == (1, 3, length)
        assert torch.equal(one.mask, other.mask)
        torch.testing.assert_close(one.by_layer([0]).mean(dim=0), other.scores * one.mask)
        assert not one.mask[-1]  # token_pre: the last token has no partner
        assert other.entropies is None and other.norms is None
    assert tuple(full[0].norms.shape) == (3, 2)


def test_entropies_of_a_policy_without_preferences(field, processor):
    """An LM head of zeros gives every token the same chance: entropy is the logarithm of the vocabulary."""
    policy, network, spec = field
    policy.get_output_embeddings().weight.data.zero_()
    rows, responses = [load_rows("digits", limit=1)[0]], [Response([20, 21, 2], "", 1.0)]
    [measured] = response_deviations(policy, processor, rows, responses, network, spec, with_entropies=True)
    expected = torch.log(torch.tensor(float(policy.config.get_text_config().vocab_size)))
    torch.testing.assert_close(measured.entropies, expected.expand(3))


@pytest.fixture
def saved(field, processor, tmp_path):
    policy, network, spec = field
    policy.save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    save_field(tmp_path / FIELD_FOLDER, network, spec)
    return tmp_path


def test_the_command_writes_page_numbers_and_figures(saved, capsys):
    paths = ["--policy", str(saved / "policy"), "--flow", str(saved / FIELD_FOLDER), "--out", str(saved / "out")]
    data = ["--data", "digits", "--dataset_split", "test", "--n", "3", "--samples", "2", "--max_new_tokens", "5"]
    code = main(["inspect", *paths, *data, "--format", "html,json,png", "--timesteps", "0.5"])
    printed = capsys.readouterr().out
    assert code == 0 and "6 responses to 3 prompts" in printed and "AUC of deviation at timestep 0.8" in printed
    assert (
        "responses to the same prompt: " in printed
        and "all responses, which includes how hard prompts are: " in printed
    )
    [result] = json.loads((saved / "out" / "inspect.json").read_text())
    assert result["timesteps"] == [0.5, 0.8] and result["rewarding_timesteps"] == [0.8]
    assert (result["rows"], result["responses"], len(result["tokens"])) == (3, 6, 6)
    assert result["accuracy"]["n"] + result["accuracy"]["undecided"] == 6
    response = result["tokens"][0]
    deviations = response["deviations"]
    assert len(response["tokens"]) == len(response["entropies"]) == len(deviations[0]) and len(deviations) == 3
    assert {path.name for path in (saved / "out" / "figures").iterdir()} == {
        "auc_by_timestep.png",
        "deviation_by_class.png",
        "deviation_maps.png",
    }
    with chromium() as browser:
        opened = browser.open(saved / "out" / "inspect.html")
        assert opened.errors == [] and opened.text("#count") == "3 of 3 prompts"
        assert opened.page.locator("#detail .card").count() == 2 and opened.page.locator("#detail img").count() == 1
        spans = opened.page.locator("#detail .tokens").first.locator("span")
        assert spans.all_inner_texts() == [piece.replace("\n", "↵\n") for piece in response["tokens"]]
        assert not opened.page.is_visible("#compare")  # one policy, each prompt once: nothing to compare
        counted = sum(int(row.split("\t")[2]) for row in opened.texts("#ranked-rewarded tr"))
        assert counted > 0
        spans.first.hover()
        mean = sum(layer[0] for layer in deviations) / 3
        shown = opened.text("#readout").split("mean of layers ")[1].split()[0]
        assert float(shown) == pytest.approx(mean, rel=5e-3)
        opened.page.context.close()
        browser.picture(saved / "out" / "inspect.html", "inspect")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--policy": None}, "--policy is not set"),
        ({"--flow": ["a", "b"]}, "2 fields for 1 policies"),
        ({"--format": ["htm"]}, "--format is 'htm'; choose html, json or png. Did you mean 'html'"),
        ({"--n": ["0"]}, "--n is 0; it must be at least 1"),
        ({"--timesteps": ["1.0"]}, "A timestep is 1.0; it must be above 0 and below 1"),
        ({"--flow": ["nowhere"]}, "No flow field at nowhere"),
        ({"--device": ["cuda:99"]}, "--device is cuda:99, and torch"),
        ({"--device": ["gpu"]}, "--device is 'gpu'; it may be auto, cpu, cuda"),
    ],
)
def test_mistakes_get_one_message(changed, message, tmp_path, capsys):
    options = {"--policy": ["p"], "--flow": ["f"], "--data": ["digits"], "--out": [str(tmp_path)]} | changed
    arguments = [part for name, values in options.items() if values is not None for part in (name, *values)]
    assert main(["inspect", *arguments]) == 2
    assert message in capsys.readouterr().err
