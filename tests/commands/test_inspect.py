"""`rlfr inspect`: tables against closed forms, and the whole command on a tiny policy and field."""

import json

import pytest
import torch

from rlfr_vlm.cli import main
from rlfr_vlm.data.encode import append_responses, encode_prompts
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.deviation import ResponseDeviation, TokenMeasures, response_deviations
from rlfr_vlm.evaluate import Response
from rlfr_vlm.flow import FIELD_FOLDER, FlowSpec, load_field, save_field
from rlfr_vlm.flow.storage import build_field
from rlfr_vlm.report.separation import auc_table, norm_table, timestep_table
from rlfr_vlm.stats import auc_interval
from tests.chromium import chromium

LAYERS = (1, 2, 3)


def deviation(values):
    """Deviation from `values` (S, L), equal at two tokens; a third token has no partner."""
    tensor = torch.tensor(values).unsqueeze(-1).expand(-1, -1, 3) * torch.tensor([1.0, 1.0, 0.0])
    return ResponseDeviation(tensor, torch.tensor([True, True, False]))


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
    measures = TokenMeasures(torch.ones(2), torch.ones(2), torch.tensor([[3.0, 5.0]]), torch.ones(1, 4))
    measured = ResponseDeviation(values, torch.tensor([True, True]), measures=measures)
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
    full = response_deviations(*arguments, batch_size=4, with_measures=True)
    shallow = response_deviations(*arguments, batch_size=4)
    for one, other, response in zip(full, shallow, responses, strict=True):
        length = len(response.ids)
        assert tuple(one.deviations.shape) == tuple(other.deviations.shape) == (1, 3, length)
        assert torch.equal(one.mask, other.mask)
        torch.testing.assert_close(one.by_layer([0]).mean(dim=0), other.scores * one.mask)
        assert not one.mask[-1]  # token_pre: the last token has no partner
        assert other.entropies is None and other.measures is None
    assert tuple(full[0].measures.norms.shape) == (3, 2)


def test_entropies_of_a_policy_without_preferences(field, processor):
    """An LM head of zeros gives every token the same chance: entropy is the logarithm of the vocabulary."""
    policy, network, spec = field
    policy.get_output_embeddings().weight.data.zero_()
    rows, responses = [load_rows("digits", limit=1)[0]], [Response([20, 21, 2], "", 1.0)]
    [measured] = response_deviations(policy, processor, rows, responses, network, spec, with_measures=True)
    expected = torch.log(torch.tensor(float(policy.config.get_text_config().vocab_size)))
    torch.testing.assert_close(measured.entropies, expected.expand(3))


def test_measures_of_a_full_pass(field, processor):
    """Log-probs and means against the policy's own logits and hidden states; blank images change the distribution."""
    policy, network, spec = field
    with torch.no_grad():  # blank images shall change the distribution by more than float32 rounds log-probs
        policy.lm_head.weight.mul_(10)
    rows, responses = [load_rows("digits", limit=1)[0]], [Response([20, 21, 2], "", 1.0)]
    [measured] = response_deviations(policy, processor, rows, responses, network, spec, with_measures=True)
    batch = append_responses(encode_prompts(processor, rows), [[20, 21, 2]], 0)
    with torch.no_grad():
        output = policy(**batch.model_inputs(), output_hidden_states=True)
        blank = batch.model_inputs() | {"pixel_values": torch.zeros_like(batch.extra["pixel_values"])}
        without = policy(**blank).logits[0, -4:-1].log_softmax(dim=-1)
    logps = output.logits[0, -4:-1].log_softmax(dim=-1)
    measures = measured.measures
    torch.testing.assert_close(measures.logps, logps[range(3), [20, 21, 2]])
    divergence = (logps.exp() * (logps - without)).sum(dim=-1)
    torch.testing.assert_close(measures.visual_dependency, divergence, rtol=1e-3, atol=1e-7)
    assert divergence.max() > 0
    means = torch.stack([output.hidden_states[layer][0, -3:].mean(dim=0) for layer in spec.layer_indices])
    torch.testing.assert_close(measures.mean_latents, means)


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
    assert [row["name"] for row in result["yardsticks"]][:3] == ["length", "low mean log-prob", "mean entropy"]
    assert "Yardsticks, responses to the same prompt:" in printed and set(result["retest"]) == {
        "sign_agreement",
        "correlation",
    }
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


def rows_with_responses(processor, path):
    """Two prompts with two responses each, one of them right, as `rlfr sample` writes them."""
    lines = []
    for prompt in range(2):
        for sample, verdict in enumerate(("right", "wrong")):
            ids = processor.tokenizer(f"{prompt + sample} \\boxed{{{sample}}}")["input_ids"]
            line = {"prompt": "1+1?", "answer": "2", "response": "x", "completion_ids": ids, "verdict": verdict}
            lines.append(json.dumps(line | {"prompt_index": prompt, "sample_index": sample}))
    path.write_text("\n".join(lines))


def test_the_grid_compares_fields_on_given_responses_and_writes_its_recommendation(saved, processor, capsys):
    rows_with_responses(processor, saved / "rows.jsonl")
    paths = ["--policy", str(saved / "policy"), "--flow", str(saved / FIELD_FOLDER), "--out", str(saved / "grid")]
    options = ["--data", str(saved / "rows.jsonl"), "--given", "true", "--grid", "true", "--timesteps", "0.5"]
    assert main(["inspect", *paths, *options, "--yardsticks", "true"]) == 0
    printed = capsys.readouterr().out
    # 1 field x 3 noises x 2 timesteps x (3 layers and their mean) x 5 statistics
    assert "4 responses of the data to 2 prompts" in printed and "120 cells" in printed
    assert "The best cell is not confirmed" in printed  # one prompt on each half has no interval
    assert "yardsticks, responses to the same prompt:" in printed and "  low mean log-prob: " in printed
    written = json.loads((saved / "grid" / "grid.json").read_text())
    assert {"length", "low mean log-prob", "mean entropy"} <= {row["name"] for row in written["yardsticks"]}
    assert len(written["cells"]) == 120 and (saved / "grid" / "grid.png").stat().st_size > 1000
    assert load_field(saved / FIELD_FOLDER)[1].recommended == written["recommended"]
    assert written["recommended"]["confirmed"] is False


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "no column 'verdict'"),
        (
            {"verdict": "right"},
            "--given needs rows that `rlfr sample` wrote. The data set has no column 'prompt_index'",
        ),
        ({"verdict": "right", "prompt_index": 0}, "has no column 'completion_ids'"),
    ],
)
def test_rows_without_responses_are_named(saved, capsys, columns, message):
    (saved / "rows.jsonl").write_text(json.dumps({"prompt": "1+1?", "answer": "2", **columns}))
    paths = ["--policy", str(saved / "policy"), "--flow", str(saved / FIELD_FOLDER), "--out", str(saved / "out")]
    assert main(["inspect", *paths, "--data", str(saved / "rows.jsonl"), "--given", "true"]) == 2
    assert message in capsys.readouterr().err


def test_a_grid_of_two_policies_is_refused(saved, capsys):
    both = [str(saved / "policy")] * 2
    arguments = ["--policy", *both, "--flow", "f", "--data", "digits", "--grid", "true"]
    assert main(["inspect", *arguments]) == 2
    assert "--grid compares fields of one" in capsys.readouterr().err
