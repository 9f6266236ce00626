"""`results.json` and `sweep.html`: the table, a thin line for each seed, the states of the runs."""

import json

import pytest

from rlfr_vlm.sweep.report import write_results
from tests.chromium import chromium
from tests.page_data import page_data
from tests.sweep.helpers import FakeTraining, sweep_of

PLAN = {"rlvr/seed-1": (0.25, 0.5), "rlvr/seed-2": (0.75, 0.5), "entropy/seed-1": (0.5, 0.25)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three of four runs are finished: rlvr with two seeds, entropy with the first."""
    import subprocess

    folder = tmp_path_factory.mktemp("sweep")
    training, sweep = FakeTraining(folder, PLAN), sweep_of(folder / "out")
    for run in sweep.runs[:3]:
        subprocess.run(training.command(run), check=True)
    text = write_results(sweep, {"entropy/seed-2": 1})
    return folder / "out", text


def test_results_file(written):
    out, _ = written
    results = json.loads((out / "results.json").read_text())
    rlvr, entropy = results["rows"]
    assert rlvr["per_seed"]["eval_greedy"] == {"1": 0.25, "2": 0.75} and rlvr["means"]["eval_greedy"] == 0.5
    assert (rlvr["reference"], entropy["reference"]) == (None, "rlvr")
    assert entropy["differences"]["eval_greedy"] == {"seeds": [1], "per_seed": [0.25], "mean": 0.25, "ci95": None}
    assert results["runs"] == {
        "rlvr/seed-1": "finished",
        "entropy/seed-1": "finished",
        "rlvr/seed-2": "finished",
        "entropy/seed-2": "failed with exit code 1",
    }


def test_printed_table(written):
    lines = written[1].splitlines()
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == [
        "entropy", "1", "0.500", "0.250", "rlvr", "+0.250, no interval (1 pair)", "-0.250, no interval (1 pair)",
    ]  # fmt: skip
    assert "entropy lacks seed 2, left out of its mean and its pairs." in lines


def test_the_page_has_means_and_single_seeds(written):
    page = (written[0] / "sweep.html").read_text()
    chart = next(chart for chart in page_data(page)["charts"] if chart["id"] == "held-out")
    greedy = chart["lines"][0]
    assert greedy["label"] == "rlvr: greedy" and greedy["values"] == [0.5] and "low" not in greedy
    assert greedy["singles"] == [{"label": "seed 1", "values": [0.25]}, {"label": "seed 2", "values": [0.75]}]
    assert "singles" not in chart["lines"][2]  # entropy has one seed
    assert chart["note"] == "Thick: mean of 2 seeds; thin: single seeds."


def test_nothing_is_written_before_a_run_is_finished(tmp_path):
    assert write_results(sweep_of(tmp_path), {}) is None and not list(tmp_path.iterdir())


def test_the_page_in_a_browser(written):
    with chromium() as browser:
        opened = browser.open(written[0] / "sweep.html")
        assert opened.errors == [] and opened.text("#runs table").count("finished") == 3
        assert opened.texts("#table tbody tr:nth-child(2) td")[3] == "rlvr"
        legend = opened.page.locator("#chart-held-out .u-series")
        hidden = [row for row in legend.all() if not row.is_visible()]
        assert len(hidden) == 4 and "rlvr: greedy, seed 1" in hidden[0].inner_text()
        rlvr = opened.page.locator("#chart-held-out .u-series:not(.single)").nth(1)
        rlvr.locator("th").click()  # hides the line, and its seeds with it
        assert [("u-off" in (row.get_attribute("class") or "")) for row in hidden] == [True, True, False, False]
        opened.page.context.close()
        phone = browser.open(written[0] / "sweep.html", "phone")
        assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
        phone.page.context.close()
