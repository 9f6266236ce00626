"""The report page in a real browser: contents against hand-counted values; errors and requests are recorded."""

import pytest

from rlfr_vlm.report.read_run import read_run
from rlfr_vlm.report.run_report import PageOptions, write_training_report
from tests.chromium import chromium
from tests.report.fake_run import group, response, write_run

HOSTILE = "<script>document.title='pwned'</script></script>{{7*7}}<img src=x onerror=document.title='pwned'>"
RTL = "מה התשובה \u202eabc"
LONG = "w" * 10_000


@pytest.fixture(scope="module")
def made(processor, tmp_path_factory):
    """Two runs: `a` has flow rewards and a prompt 7 that turns right; `b` has none and shares some prompts."""
    tokenizer = processor.tokenizer

    def ids(text):
        return tokenizer(text)["input_ids"]

    plus = ids("2+3=5")
    deviations = [1.0, 5.0, 2.0, 5.0, 4.9]  # "2", "+", "3", "=", "5"; the two largest exceed the threshold
    flow = [0.01, -0.01, 0.0, 0.0, 0.0]
    assert len(plus) == 5
    a = [
        group(0, 7, [response(plus, False, flow, deviations), response(ids("6"), False, [0.0], [1.0])]),
        group(0, 8, [response(ids(HOSTILE), None, [0.0] * len(ids(HOSTILE)))], question=HOSTILE),
        group(2, 7, [response(plus, True, flow, deviations), response(plus, True, flow, deviations)]),
        group(2, 9, [response(ids(LONG), True), response(ids(RTL), False)], question=RTL),
    ]
    b = [group(0, 7, [response(plus, True), response(plus, True)]), group(0, 8, [response(ids("1"), False)])]
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        write_run(folder / "a", a, [0.25, 0.5, 0.75], tokenizer),
        write_run(folder / "b", b, [0.1, 0.2, 0.3], tokenizer, method="rlvr"),
    ]
    plain = write_run(folder / "plain", b, [0.1, 0.2], tokenizer, method="rlvr")
    write_training_report([read_run(plain)], folder / "page" / "plain", PageOptions({}, 2000))
    other = write_run(folder / "other", [a[0] | {"layers": [9, 18]}], [0.5], tokenizer, seed=2)
    write_training_report([read_run(runs[0]), read_run(other)], folder / "page" / "layers", PageOptions({}, 2000))
    (folder / "a" / "alerts.jsonl").write_text('{"step": 3, "alert": "flow", "message": "it <b>falls</b>"}\n')
    return write_training_report([read_run(run) for run in runs], folder / "page", PageOptions({}, 2000))


@pytest.fixture(scope="module")
def browser(made):
    with chromium() as running:
        yield running


@pytest.fixture
def opened(browser, made):
    opened = browser.open(made)
    yield opened
    opened.page.context.close()


def test_it_opens_from_disk_quietly_and_alone(opened, made):
    assert opened.errors == [] and all(url.startswith(("file:", "data:")) for url in opened.requests)
    assert opened.page.title() == "a and b" and not opened.page.is_visible("#failure")
    assert "a, step 3: it <b>falls</b>" in opened.text(".verdict")
    assert "0.250 right in the first step, 0.750 in the last" in opened.text("#summary")
    assert {path.name for path in (made.parent / "figures").iterdir()} == {"curves.png", "deviation_by_class.png"}
    assert "it &lt;b>falls&lt;/b>" in (made.parent / "report.md").read_text()


def test_the_policy_forbids_the_network_and_inline_scripts(opened):
    violations, executed = opened.page.evaluate(
        """async () => {
            const found = [];
            document.addEventListener("securitypolicyviolation", (event) => found.push(event.effectiveDirective));
            const markup = "<img src='http://127.0.0.1:9/x'><i onclick='window.hit = 1'>x</i>";
            document.body.insertAdjacentHTML("beforeend", markup);
            document.body.lastElementChild.click();
            try { await fetch("http://127.0.0.1:9/"); } catch (error) { found.push("fetch"); }
            await new Promise((done) => setTimeout(done, 200));
            return [found.sort(), window.hit ?? null];
        }"""
    )
    assert {"connect-src", "img-src", "script-src-attr", "fetch"} <= set(violations) and executed is None


def test_the_slider_moves_all_charts(opened):
    legend = "#chart-accuracy .u-legend"
    assert opened.text("#step-now") == "step 3" and "0.75" in opened.text(legend) and "0.3" in opened.text(legend)
    opened.page.locator("#step").focus()
    opened.page.keyboard.press("ArrowLeft")
    opened.page.keyboard.press("ArrowLeft")
    assert opened.text("#step-now") == "step 1"
    assert "0.25" in opened.text(legend) and "0.1" in opened.text(legend)
    assert "1" in opened.text("#chart-entropy .u-legend") and "1.5" in opened.text("#chart-time .u-legend")
    opened.page.click("#step-rollouts")  # the rollout before update 1
    assert opened.text("#count") == "4 of 6 prompts"


def test_hovering_a_chart_shows_its_values(opened):
    plot = opened.page.locator("#chart-accuracy .u-over")
    middle = plot.bounding_box()["width"] / 2  # step 2 of 1 to 3
    plot.hover(position={"x": middle, "y": 20})
    opened.eventually(lambda: "0.5" in opened.text("#chart-accuracy .u-legend"))
    assert "0.5" in opened.text("#chart-entropy .u-legend")  # the cursors move together: 1 / 2


def test_filters(opened):
    def left(**values):
        opened.page.click("#filters button[type=reset]")
        opened.eventually(lambda: opened.text("#count") == "6 of 6 prompts")
        opened.choose("filters", **values)
        return opened.text("#count"), opened.texts("#list .where")

    assert left()[0] == "6 of 6 prompts"
    assert left(run="0", outcome="right") == ("1 of 6 prompts", ["a · step 2 · prompt 7"])
    assert left(outcome="undecided")[1] == ["a · step 0 · prompt 8"]
    assert left(outcome="mixed")[1] == ["a · step 2 · prompt 9"]
    assert left(change="up")[1] == ["a · step 2 · prompt 7"] and left(change="down")[0] == "0 of 6 prompts"
    assert left(**{"from": "1"})[0] == "2 of 6 prompts" and left(to="1")[0] == "4 of 6 prompts"
    assert left(reward="accuracy", least="1")[0] == "3 of 6 prompts"
    assert left(reward="format", most="0.5")[0] == "0 of 6 prompts"
    assert opened.text("#detail") == "No prompt fits these filters."
    assert left(text="PWNED")[1] == ["a · step 0 · prompt 8"]
    assert left(text="2+3=5")[0] == "3 of 6 prompts"


def test_tokens_have_their_numbers_colours_and_marks(opened):
    spans = opened.page.locator("#detail .tokens").first.locator("span")
    assert spans.all_inner_texts() == ["2", "+", "3", "=", "5"]
    assert [spans.nth(i).get_attribute("class") for i in range(5)] == ["rewarded", "penalised", None, "cut", "cut"]

    def colours():
        return [spans.nth(i).evaluate("e => getComputedStyle(e).backgroundColor") for i in range(5)]

    rewarded, penalised, nothing = "rgba(33, 113, 205, 0.62)", "rgba(230, 97, 1, 0.62)", "rgba(230, 97, 1, 0)"
    assert colours() == [rewarded, penalised, nothing, nothing, nothing]
    spans.nth(1).hover()
    readout = opened.text("#readout")
    # flow reward; mean of 5 and 10; layers; entropy 0.25 x 1; advantage -0.5 plus the rewards from here on
    assert readout.startswith("token 2 of 5: + · flow reward -0.01")
    for part in ("mean of layers 7.5", "layer 1 5", "layer 3 10", "entropy 0.25", "advantage -0.51"):
        assert part in readout, readout
    opened.page.locator("#detail .tokens").first.focus()
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("ArrowRight")
    assert opened.text("#readout").startswith("token 4 of 5: =") and "cut by top-k" in opened.text("#readout")
    opened.page.locator("#mode").select_option("entropy")
    # low entropy is good (blue), high entropy bad (orange); the lowest entropy of the page is 0
    assert colours()[0].startswith("rgba(33, 113, 205") and "entropy" in opened.text("#legend")


def test_ranked_tokens_at_chosen_steps(opened):
    def ranked():
        return [[opened.texts(f"#ranked-{kind} td") for kind in ("rewarded", "penalised")]][0]

    # "2" is rewarded in one response at step 0 and in two at step 2, and occurs nowhere else
    assert ranked()[0] == ["2", "digits", "3", "3", "100 %"] and ranked()[1] == ["+", "operators", "3", "3", "100 %"]
    opened.choose("ranking", to="1")
    assert ranked()[0] == ["2", "digits", "1", "1", "100 %"]


def test_two_sides(opened):
    opened.choose("sides", a="0|first", b="1|last")
    # row 8 has another question in the other run: no pair
    assert opened.texts("#solved button") == ["both: 0", "only A: 0", "only B: 1", "neither: 0"]
    assert opened.text("#pairs-note").startswith("Prompts answered by both sides: 1.")
    opened.page.click("#solved button:has-text('only B')")
    assert opened.texts("#pairs .where") == ["prompt 7"]
    opened.page.click("#pairs button")
    titles = opened.texts("#pair h4")
    assert titles == ["A: a · step 0 · prompt 7, 0 of 2 right", "B: b · step 0 · prompt 7, 2 of 2 right"]
    opened.choose("sides", a="0|first", b="0|last")
    assert opened.texts("#solved button") == ["both: 0", "only A: 0", "only B: 1", "neither: 2"]  # a tie is not solved


def test_text_of_models_is_text(opened):
    opened.choose("filters", outcome="undecided")
    assert HOSTILE in opened.page.locator("#detail .tokens").first.text_content()
    assert opened.text("#detail .question") == HOSTILE
    opened.page.click("#filters button[type=reset]")
    opened.choose("filters", outcome="mixed")
    cards = opened.page.locator("#detail .tokens")
    assert cards.nth(0).text_content() == LONG and "⟨U+202E⟩" in cards.nth(1).text_content()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert opened.page.title() == "a and b" and opened.page.locator("#detail img").count() == 0
    assert opened.errors == []


def test_a_run_without_flow_rewards_has_its_page(browser, made):
    """Pages cannot be written while the browser is open, so the fixture `made` wrote this one as well."""
    opened = browser.open(made.parent / "plain" / "report.html")
    assert opened.errors == [] and opened.text("#count") == "2 of 2 prompts"
    assert opened.page.locator("#tokens").count() == 0 and not opened.page.is_visible("#compare")
    assert opened.page.locator("#mode option").all_inner_texts() == ["nothing", "entropy", "advantage"]
    opened.page.context.close()


def test_runs_with_other_layers_keep_their_own(browser, made):
    opened = browser.open(made.parent / "layers" / "report.html")
    opened.choose("filters", run="1")
    opened.page.locator("#detail .tokens span").first.hover()
    assert "layer 9 1 ·" in opened.text("#readout") and "layer 18 2 ·" in opened.text("#readout")
    assert "layer 1 " not in opened.text("#readout")
    opened.page.context.close()


@pytest.mark.parametrize("view", ["wide", "phone"])
def test_numbers_of_a_token_are_in_view_wherever_it_is(browser, made, view):
    opened = browser.open(made, view)
    for container in ("#detail", "#pair"):
        opened.page.locator(f"{container} .tokens span").last.hover()
        box = opened.page.locator("#readout").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= opened.page.viewport_size["height"]
        assert opened.text("#readout").startswith("token ")
    opened.page.context.close()


def test_keyboard_alone(opened):
    opened.choose("filters", run="0")
    opened.page.locator("#list button").nth(2).focus()
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#list [aria-current=true] .where").inner_text() == "a · step 2 · prompt 7"
    opened.page.locator("#detail button:not([disabled])").first.focus()
    opened.page.keyboard.press("Enter")  # the prompt's earlier visit
    assert opened.text("#detail h3").startswith("a · step 0 · prompt 7")
    assert opened.page.evaluate("document.activeElement.tagName") == "H3"


def test_pictures_of_each_view(browser, made):
    browser.picture(made, "report")
