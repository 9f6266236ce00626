"""What a judge would cost, said beforehand: from the prompts that VLMEvalKit's scoring would really ask."""

import re

from tests.eval.vlm.sets import SETS, judge, text_of

REPLY = 1024  # JUDGE_MAX_TOKENS, as it is by default
BYTES_PER_TOKEN = 2


def tokens(bodies):
    """Of requests as they were on the wire, each with its longest reply."""
    sizes = [sum(len(message["content"].encode()) for message in body["messages"]) for body in bodies]
    return sum(size // BYTES_PER_TOKEN + REPLY for size in sizes)


def about_rows(server):
    """Requests that are no known cases: the judged answer carries its mark."""
    return [body for body in server.requests if re.search(r"\((\w+)-(\d+)\)", text_of(body))]


def test_stored_answers_cost_what_is_then_asked(vlm, healthy, run_eval):
    data = ("LogicVista", "DynaMath", "VisuLogic", "MMMU_DEV_VAL", "MathVista_MINI")
    judged = sum(bool(sample.judge) for name in data for sample in SETS[name])
    assert judged == 5 + 3 + 0 + 2 + 5
    assert vlm("--judge", "none", data=data)[0] == 0
    code, said, _ = run_eval("regrade", "run", "--dry-run", "--judge-base-url", healthy.url)
    code_too, planned, _ = vlm("--dry-run", "--judge-base-url", healthy.url, data=data)
    assert code == code_too == 0 and not healthy.requests
    assert run_eval("regrade", "run", "--judge-base-url", healthy.url, "--no-judge-cache")[0] == 0
    asked = about_rows(healthy)
    assert len(asked) == judged
    line = f"15 answers for the judge; at most {tokens(asked)} tokens, 0.00 USD"
    assert said.startswith(line) and f"{line} at the prices in the settings (of the answers that are there)" in planned


def test_a_second_question_is_counted_before_the_first_is_answered(vlm, healthy, run_eval):
    """MathVerse asks to extract, then to compare; three of five answers need both, which only the judge can tell."""
    assert vlm("--judge", "none", data=("MathVerse_MINI",))[0] == 0
    _, said, _ = run_eval("regrade", "run", "--dry-run")
    found = re.match(r"5 answers for the judge, 10 requests; at most (\d+) tokens", said)
    assert run_eval("regrade", "run", "--judge-base-url", healthy.url, "--no-judge-cache")[0] == 0
    extractions = about_rows(healthy)
    comparisons = [body for body in healthy.requests if "[MathVerse_MINI-" in text_of(body)]
    assert (len(extractions), len(comparisons)) == (5, 3)
    # where 50 mm, 6 and C were, 301 characters stand, longer than any reply that is read; for all five answers, whose
    # comparisons differ in a few characters
    size = (sum(len(text_of(body).encode()) for body in comparisons) - len("50 mm6C")) / 3 + 301
    assert found and abs(int(found[1]) - tokens(extractions) - 5 * (REPLY + size / BYTES_PER_TOKEN)) < 10


def test_before_there_are_answers_their_length_is_assumed(vlm, serve, alone):
    """As if the model wrote 1,000 characters that rules can make nothing of."""
    server = serve(lambda body, n: "Z" if "?" * 1000 in text_of(body) else judge(body), models=({"id": "j"},))
    arguments = ("--judge-base-url", server.url, "--no-judge-cache")
    code, planned, _ = vlm(*arguments, "--dry-run", data=("LogicVista", "VisuLogic"))
    assert code == 0 and not (alone / "run").exists() and not server.requests
    vlm.server = serve(lambda body, n: "?" * 1000)
    code, _, err = vlm(*arguments, data=("LogicVista", "VisuLogic"))
    assert code == 0, err
    asked = [body for body in server.requests if "?" * 1000 in text_of(body)]
    assert len(asked) == 5
    line = f"5 answers if rules decided none; with answers of 1000 characters at most {tokens(asked)} tokens"
    assert line in planned
    _, planned, _ = vlm("--judge-base-url", server.url, "--dry-run", data=("MathVerse_MINI",), out="other")
    assert "5 answers (10 requests) if rules decided none; with answers of 1000 characters at most" in planned
