"""Faulty replies to VLMEvalKit's judge prompts, each with the state it leads to; none decides against the truth.

Every answer to LogicVista and MathVerse needs a judge: three of five are right in each. A reply to LogicVista names
letters, one to MathVerse is an extracted answer, and then 0 or 1.
"""

import pytest

from tests.end_to_end.eval.vlm.test_faults import TRUE, finals
from tests.eval.faults import FAILED, HARMLESS, STOPPING, always, message, saying
from tests.eval.vlm.sets import SETS, judge
from tests.eval.vlm.test_judge_replies import about_a_row

pytestmark = pytest.mark.slow  # a whole run each

DATA = ("LogicVista", "MathVerse_MINI")
STATES = {  # state -> right, wrong, undecided of each set; exit code; whether the reasons are failures
    "failed": ((0, 0, 5), 3, True),
    "undecided": ((0, 0, 5), 0, False),
    "decided": ((3, 2, 0), 0, False),
}
SERVERS = ("HTTP 400", "HTTP 500", "connection closed", "torn JSON", "page called JSON", "compressed by name only")
REPLIES = ("no choices", "another model", "aborted", "empty text without tokens")
ODD = ("two choices, of which the first counts", "no finish reason", "content in parts", "usage of huge counts")
UNDECIDED = {
    "cut off": saying(finish_reason="length"),
    "reasoning that does not end": message(lambda text: f"<think>{text}"),
    "NUL alone": always(text="\0\0"),
    "half of a surrogate pair": always(text="\udfff"),
    "a hundred thousand characters": message(lambda text: f"{text} because " * 10_000),
    "denied": message("The answer is not {}".format),
}
STATE_OF = {
    **{name: (FAILED[name], "failed") for name in (*SERVERS, *REPLIES)},
    **{name: (fault, "undecided") for name, fault in UNDECIDED.items()},
    **{name: (HARMLESS[name], "decided") for name in ODD},
}


@pytest.fixture
def judged(vlm, serve):
    """Runs `rlfr-eval vlm` with a judge whose replies about answers of the run are faulty; returns code and output."""
    judging = serve(judge, models=({"id": "j"},))

    def run(fault):
        judging.script = lambda body, n: fault(judge(body), body) if about_a_row(body) else judge(body)
        code, out, err = vlm("--judge-base-url", judging.url, data=DATA)
        assert "Traceback" not in out + err
        return code, out + err

    run.judging = judging
    return run


def decided(alone):
    """id -> final verdict, where it is one."""
    return {key: verdict for key, verdict in finals(alone / "run").items() if verdict != "undecided"}


EXPECTED = {key: TRUE[key] for key in TRUE if key.split("/")[0] in DATA}


@pytest.mark.parametrize("case", STATE_OF)
def test_faulty_reply_leads_to_its_state_and_a_healthy_judge_completes_it(judged, impatient, scores, alone, case):
    fault, state = STATE_OF[case]
    expected, expected_code, failed = STATES[state]
    code, shown = judged(fault)
    assert code == expected_code, shown
    for name, one in scores(alone / "run")["benchmarks"].items():
        assert (one["right"], one["wrong"], one["undecided"], one["missing"]) == (*expected, 0), name
        assert all(why.startswith("judge failed: ") == failed for why in one["undecided_reasons"])
    assert decided(alone) == (EXPECTED if state == "decided" else {})
    asked = len(judged.judging.requests)
    code, shown = judged(saying())
    assert code == 0 and decided(alone) == EXPECTED, shown
    again = sum(map(about_a_row, judged.judging.requests[asked:]))
    questions = sum(len(sample.judge) for name in DATA for sample in SETS[name])
    assert again == (0 if state == "decided" else questions)


@pytest.mark.parametrize("case", STOPPING)
def test_reply_that_no_other_request_can_mend_stops_the_judging(judged, alone, case):
    """Nothing is decided, and a healthy judge completes the run."""
    code, shown = judged(STOPPING[case])
    assert code == 2 and "the judge's server" in shown and decided(alone) == {}
    assert judged(saying())[0] == 0 and decided(alone) == EXPECTED
