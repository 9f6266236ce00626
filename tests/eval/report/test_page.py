"""`rlfr-eval report` as a page, in a real browser; the scores of the scripted policies are known by construction."""

import json

from tests.chromium import chromium
from tests.end_to_end.eval.test_lm import adds, number_in
from tests.page_data import page_data

HOSTILE = "<script>document.title='pwned'</script>{{7*7}}<img src=x onerror=document.title='pwned'> \u202eabc"


def all_but_two(body, n):
    i = number_in(body)
    return HOSTILE + (f" \\boxed{{{2 * i}}}" if i not in (0, 3) else " \\boxed{-1}")


def two_runs(serve, toy, run_eval):
    """`a` is right for the five even numbers of ten, `b` for all but 0 and 3."""
    name = toy(10, more='[[reference]]\nmodel = "M"\nmethod = "RLVR"\nvalue = 40.0\nmetric = "pass@1"\nsource = "s"')
    for folder, script in (("a", adds), ("b", all_but_two)):
        code, _, err = run_eval("lm", "--base-url", serve(script).url, "--suite", name, "--data-dir", "data", "--out",
                                folder)  # fmt: skip
        assert code == 0, err


def test_two_runs_on_a_page(serve, toy, run_eval, alone):
    two_runs(serve, toy, run_eval)
    code, out, err = run_eval("report", "a", "b", "--out", "page")
    assert code == 0 and "page: page/report.html" in out, err
    assert (alone / "a" / "report.md").exists() and (alone / "b" / "report.md").exists()
    with chromium() as browser:
        opened = browser.open(alone / "page" / "report.html")
        rows = opened.texts("#scores tbody > tr")
        # 5 and 8 of 10 with Wilson's intervals; 50 and 80 against the published 40
        assert "50.0" in rows[0] and "[23.7, 76.3]" in rows[0] and "80.0" in rows[2] and "[49.0, 94.3]" in rows[2]
        opened.page.locator("#scores details summary").first.click()
        assert "M RLVR" in opened.text("#scores") and "+10.0" in opened.text("#scores")
        difference = opened.texts("#differences tbody tr")[0]
        assert "+30.0" in difference and "0.375" in difference and "+4" in difference and "−1" in difference
        assert opened.text("#count") == "10 of 10 problems"
        opened.choose("filters", run="1", verdict="wrong")
        assert opened.text("#count") == "2 of 10 problems" and opened.texts("#list .where") == ["toy/p0", "toy/p3"]
        assert opened.texts("#list .dots") == ["●○", "○○"]
        opened.choose("filters", run="", verdict="", flip="yes")
        assert opened.text("#count") == "5 of 10 problems"  # 0 lost; 1, 5, 7, 9 won
        opened.choose("filters", text="pwned")
        assert opened.text("#count") == "5 of 10 problems"
        cards = opened.page.locator("#detail .tokens")
        assert HOSTILE.split(" \u202e")[0] in cards.nth(1).text_content()
        assert "⟨U+202E⟩" in cards.nth(1).text_content()
        assert "What is 0 plus 0?" in opened.text("#detail .question") and "gold 0" in opened.text("#detail")
        assert opened.page.title() == "a and b" and opened.errors == []
        assert all(url.startswith(("file:", "data:")) for url in opened.requests)
        opened.page.context.close()
        browser.picture(alone / "page" / "report.html", "evaluation")


def test_runs_that_were_asked_otherwise_show_both_prompts(serve, toy, run_eval, alone):
    name = toy(2)
    for folder, more in (("a", ()), ("b", ("--prompt", "qwen-box"))):
        code, _, err = run_eval("lm", "--base-url", serve(lambda body, n: "\\boxed{0}").url, "--suite", name,
                                "--data-dir", "data", "--out", folder, *more)  # fmt: skip
        assert code == 0, err
    assert run_eval("report", "a", "b", "--out", "page")[0] == 0
    data = page_data((alone / "page" / "report.html").read_text())
    assert "<|im_start|>" not in data["problems"]["toy/p0"]["question"]
    asked = {one["run"]: one["asked"] for one in data["answers"]}
    assert asked[0] is None and "<|im_start|>" in asked[1]


def test_problems_that_are_gone_leave_the_answers(serve, toy, run_eval, alone):
    two_runs(serve, toy, run_eval)
    (alone / "data" / "toy.jsonl").unlink()
    assert run_eval("report", "a")[0] == 0
    with chromium() as browser:
        opened = browser.open(alone / "a" / "report.html")
        assert "could not be read again" in opened.text("#answers") and "toy.jsonl" in opened.text("#answers")
        assert "so \\boxed{0}" in opened.text("#detail") and opened.errors == []


def test_fewer_answers_and_no_page_when_asked(serve, toy, run_eval, alone):
    two_runs(serve, toy, run_eval)
    code, out, _ = run_eval("report", "a", "b", "--answers", "8", "--json")
    assert code == 0 and json.loads(out.splitlines()[0])["benchmarks"]["toy"]["accuracy"] == 0.5
    page = (alone / "a" / "report.html").read_text()
    assert "8 of 20 answers." in page
    assert run_eval("report", "b", "--no-page")[0] == 0 and not (alone / "b" / "report.html").exists()
    code, _, err = run_eval("report", "a", "--answers", "-1")
    assert code == 2 and "--answers is -1" in err


def test_undecided_scores_are_no_bars_and_say_why(serve, toy, run_eval, alone):
    """Every second answer cannot be read by rules; without a judge there is no number, only bounds."""
    name = toy(4, rows=[{"id": f"p{i}", "problem": f"What is {i} plus {i}?", "answer": "a line" if i % 2 else "0"}
                        for i in range(4)])  # fmt: skip
    server = serve(lambda body, n: "\\boxed{the straight line}" if number_in(body) % 2 else "\\boxed{0}")
    assert run_eval("lm", "--base-url", server.url, "--suite", name, "--data-dir", "data", "--out", "run")[0] == 0
    assert run_eval("report", "run")[0] == 0
    with chromium() as browser:
        opened = browser.open(alone / "run" / "report.html")
        row = opened.texts("#scores tbody tr")[0]
        assert "50.0 % undecided" in row and "50.0 to 100.0" in row
        opened.choose("filters", verdict="undecided")
        assert opened.text("#count") == "2 of 4 problems" and "? undecided" in opened.text("#detail")


def test_reports_go_where_out_says_and_nowhere_else(serve, toy, run_eval, alone):
    name = toy(2)
    for folder in ("a", "b"):
        url = serve(lambda body, n: "\\boxed{0}").url
        arguments = ("lm", "--base-url", url, "--suite", name, "--data-dir", "data")
        code, out, _ = run_eval(*arguments, "--out", folder)
        assert code == 0 and f"page with every answer: rlfr-eval report {folder}" in out
        (alone / folder / "report.md").unlink()
    assert run_eval("report", "a", "--out", "reports/one.html")[0] == 0
    assert sorted(path.name for path in (alone / "reports").iterdir()) == ["one.html", "report.md"]
    code, out, _ = run_eval("report", "a", "b", "--out", "two")
    assert code == 0 and "page: two/report.html" in out and "page with every answer" not in out
    assert sorted(path.name for path in (alone / "two").iterdir()) == ["report-a.md", "report-b.md", "report.html"]
    assert not list(alone.glob("[ab]/report*"))
