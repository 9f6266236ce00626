"""Faulty replies of a judge, each with the state it leads to; no answer is decided against the truth.

Rules decide neither of two answers, the first right, the second wrong; the judge's replies about both are faulty.
"""

import json

import pytest

from rlfr_vlm.servers.endpoint import Endpoint
from tests.eval.faults import FAILED, HARMLESS, SLOW, STOPPING, always, message, saying
from tests.eval.test_replies_undecided import WHY, about_the_season, healthy_judge, policy_why

pytestmark = pytest.mark.slow  # a whole run each

STATES = {  # state -> right, wrong, undecided; exit code; whether the reasons are failures
    "failed": ((0, 0, 2), 3, True),
    "undecided": ((0, 0, 2), 0, False),
    "decided": ((1, 1, 0), 0, False),
}


def code_of(text):
    return text.split("VERDICT ")[1][:6]


def verdict(form):
    """The healthy verdict in another form: `{code}`, `{word}`, and `{other}` for the contrary are filled in."""

    def content(text):
        word = text.rsplit(": ", 1)[1]
        return form.format(code=code_of(text), word=word, other={"CORRECT": "INCORRECT"}.get(word, "CORRECT"))

    return message(content)


UNDECIDED = {
    "no verdict": always(text="Both say that it was cold."),
    "yes": always(text="Yes."),
    "empty with tokens": always(text="", tokens=3),
    "white space": always(text=" \n"),
    "NUL alone": always(text="\0\0"),
    "half of a surrogate pair alone": always(text="\ud800"),
    "refusal": always(text="I'm sorry, I can't help with that."),
    "verdict without a code": verdict("VERDICT: {word}"),
    "verdict with another code": verdict("VERDICT 000000: {word}"),
    "verdict with half of the code": message(lambda text: text.replace(code_of(text), code_of(text)[:3])),
    "both verdicts": verdict("VERDICT {code}: {word}\nVERDICT {code}: {other}"),
    "verdict and a doubt": verdict("VERDICT {code}: {word}\nVERDICT {code}: UNSURE"),
    "unsure": verdict("VERDICT {code}: UNSURE"),
    "denied verdict": verdict("VERDICT {code}: NOT {word}"),
    "verdict within a sentence": verdict("I would say VERDICT {code}: {word}, or not."),
    "verdict with a NUL": message(lambda text: text.replace("CORRECT", "COR\0RECT")),
    "verdict in look-alike letters": message(lambda text: text.replace("CORRECT", "\u0421ORRECT")),
    "verdict with a zero-width space": message(lambda text: text.replace("VERDICT", "VER\u200bDICT")),
    "JSON": verdict('{{"verdict": "{word}", "code": "{code}"}}'),
    "cut off": saying(finish_reason="length"),
    "stopped by a content filter": saying(finish_reason="content_filter"),
    "only reasoning": lambda text, asked: message(lambda text: None, reasoning_content=text)(text, asked),
    "verdict within reasoning that does not end": message(lambda text: f"<think>{text}"),
    "verdict within reasoning alone": message(lambda text: f"<think>{text}</think>Done."),
}
DECIDED = {
    **HARMLESS,
    "verdict in lower case": message(str.lower),
    "bold verdict": message("**{}**".format),
    "verdict with a wide colon": verdict("VERDICT {code}\uff1a {word}"),
    "verdict twice": verdict("VERDICT {code}: {word}\nVERDICT {code}: {word}"),
    "verdict after the contrary in reasoning": verdict("<think>VERDICT {code}: {other}</think>VERDICT {code}: {word}"),
    "verdict after megabytes": message(lambda text: "They differ in words. " * 100_000 + "\n" + text),
    "verdict beside half of a surrogate pair": message(lambda text: f"\udfff\n{text}"),
}
STATE_OF = {
    **{name: (fault, "failed") for name, fault in FAILED.items()},
    **{name: (fault, "undecided") for name, fault in UNDECIDED.items()},
    **{name: (fault, "decided") for name, fault in DECIDED.items()},
}


@pytest.fixture
def hasty(monkeypatch):
    """Makes requests give up after one or two tries, and after two seconds if told so."""
    real = Endpoint.__init__

    def limit(seconds=None):
        def init(self, *given, **settings):
            real(self, *given, **settings)
            self.first_delay, self.max_tries = 0.01, min(self.max_tries, 2)
            self.time_limit = min(self.time_limit, seconds or self.time_limit)

        monkeypatch.setattr(Endpoint, "__init__", init)

    return limit


@pytest.fixture
def judged(serve, toy, run_eval):
    """Runs `rlfr-eval lm` with a judge whose replies about answers of the run are faulty; returns code and output."""
    server, judging, name = serve(policy_why), serve(healthy_judge), toy(rows=WHY)

    def run(fault):
        judging.script = lambda body, n: (
            fault(healthy_judge(body), body) if about_the_season(body) else healthy_judge(body)
        )
        code, out, err = run_eval(
            "lm", "--base-url", server.url, "--suite", name, "--data-dir", "data", "--out", "run",
            "--judge-base-url", judging.url,
        )  # fmt: skip
        assert "Traceback" not in out + err
        return code, out + err

    run.judging = judging
    return run


def decided(alone):
    """id -> a judge's verdict, where it is one."""
    lines = map(json.loads, (alone / "run" / "verdicts.jsonl").read_text().splitlines())
    return {row["id"]: row["verdict"] for row in lines if row["by"] == "judge" and row["verdict"] != "undecided"}


def counts(one):
    return one["right"], one["wrong"], one["undecided"]


@pytest.mark.parametrize("case", STATE_OF)
def test_faulty_reply_leads_to_its_state_and_a_healthy_judge_completes_it(
    judged, hasty, scores, alone, run_eval, case
):
    fault, state = STATE_OF[case]
    expected, expected_code, failed = STATES[state]
    hasty(2.0 if case in SLOW else None)
    code, shown = judged(fault)
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert counts(one) == expected and code == expected_code, shown
    assert one["missing"] == 0 and sum(one["undecided_reasons"].values()) == expected[2]
    assert all(why.startswith("judge failed: ") == failed for why in one["undecided_reasons"])
    true = {"toy/t0/0": "right", "toy/t1/0": "wrong"}
    assert decided(alone) == (true if state == "decided" else {})
    assert run_eval("report", "run")[0] == 0 and run_eval("show", "run", "--id", "t1")[0] == 0
    asked = len(judged.judging.requests)
    code, shown = judged(saying())
    assert code == 0 and decided(alone) == true, shown
    about_the_run = sum(map(about_the_season, judged.judging.requests[asked:]))
    assert about_the_run == expected[2]  # what was open, and nothing else


@pytest.mark.parametrize("case", STOPPING)
def test_reply_that_no_other_request_can_mend_stops_the_judging(judged, alone, case):
    """Nothing is decided, and a healthy judge completes the run."""
    code, shown = judged(STOPPING[case])
    assert code == 2 and "the judge's server" in shown and decided(alone) == {}
    assert judged(saying())[0] == 0
    assert decided(alone) == {"toy/t0/0": "right", "toy/t1/0": "wrong"}
