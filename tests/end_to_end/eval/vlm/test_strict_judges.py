"""Judges whose replies look like verdicts and are none: what hangs on them stays undecided, nothing turns over."""

import base64
import json
import sqlite3

from tests.eval.vlm.sets import draw, judge, text_of

POPE = """
name = "POPE"
title = "POPE"
licence = "none"
n = 4
vlmeval = "POPE"
[score]
column = "acc"
row = "Overall"
unit = "percent"
"""


def judged(vlm, serve, scores, alone, script, name):
    server = serve(script, models=({"id": "j"},))
    code, _, err = vlm("--judge-base-url", server.url, data=(name,))
    assert code == 0, err
    return scores(alone / "run")["benchmarks"][name]


def counts(one):
    return one["right"], one["wrong"], one["undecided"]


def test_a_one_in_a_sentence_is_no_judgement(vlm, serve, scores, alone):
    """Rows 0 and 4 are the reference letter by letter; the second questions about the three others get a sentence."""

    def chatty(body, n):
        second = "Judgement:" in text_of(body) and "MathVerse_MINI-" in text_of(body)
        return "There is 1 difference between the two answers." if second else judge(body)

    one = judged(vlm, serve, scores, alone, chatty, "MathVerse_MINI")
    assert counts(one) == (2, 0, 3) and not one["headline"]


def test_a_word_in_capitals_is_no_list_of_options(vlm, serve, scores, alone):
    def shouting(body, n):
        return "ERROR" if "(LogicVista-" in text_of(body) else judge(body)

    one = judged(vlm, serve, scores, alone, shouting, "LogicVista")
    assert counts(one) == (0, 0, 5)


def test_a_number_that_is_glued_to_its_unit_is_not_its_first_digit(vlm, serve, scores, alone):
    """Of MathVista's five judged rows two are floats; they become undecided, the other six stand."""

    def units(body, n):
        said = judge(body)
        return said + "cm" if "(MathVista_MINI-" in text_of(body) and "." in said else said

    one = judged(vlm, serve, scores, alone, units, "MathVista_MINI")
    assert counts(one) == (4, 2, 2)


def write_pope(alone, golds=("Yes", "No", "Yes", "No")):
    picture = base64.b64encode(draw(2)).decode()
    rows = [f"{i}\tIs there a dog? [q{i}]\t{gold}\tadversarial\t{i}.png\t{picture}\n" for i, gold in enumerate(golds)]
    (alone / "lmu" / "POPE.tsv").write_text("index\tquestion\tanswer\tcategory\timage_path\timage\n" + "".join(rows))
    (alone / "POPE.toml").write_text(POPE)


def test_chatter_about_a_set_that_vlmevalkit_scores_by_row(vlm, serve, scores, alone):
    """A judge that passes no known case, used by force: VLMEvalKit would take its replies for wrong answers."""
    write_pope(alone)
    vlm.server = serve(lambda body, n: "Yes" if "[q0]" in text_of(body) else "hard to say")
    chatting = serve(lambda body, n: "I love chatting", models=({"id": "j"},))
    code, _, err = vlm("--judge-base-url", chatting.url, data=("POPE.toml",))
    assert code == 2 and "known cases" in err and not vlm.server.requests
    code, _, err = vlm("--judge-base-url", chatting.url, "--judge-force", data=("POPE.toml",))
    one = scores(alone / "run")["benchmarks"]["POPE"]
    assert code == 0 and counts(one) == (1, 0, 3), err
    assert one["undecided_reasons"] == {"VLMEvalKit could not read the judge's reply": 3}


def test_half_a_character_in_an_answer_is_judged_like_any_other(vlm, serve, healthy, scores, alone):
    """It cannot be sent as it is; once the request failed, the judge was charged, and no re-run came to an end."""
    vlm.server = serve(lambda body, n: f"It is B \ud83d (LogicVista-{text_of(body).split('[LogicVista-')[1][0]})")
    code, _, err = vlm("--judge-base-url", healthy.url, data=("LogicVista",))
    one = scores(alone / "run")["benchmarks"]["LogicVista"]
    assert code == 0 and counts(one) == (3, 2, 0), err
    assert any("It is B ?" in text_of(body) for body in healthy.requests)


def test_what_an_older_reader_made_of_replies_is_read_again(vlm, healthy, scores, alone):
    """The cache gives the reply, not the old reading of it; verdicts that hang on the old reading count no more."""
    assert vlm("--judge-base-url", healthy.url, data=("LogicVista",))[0] == 0
    assert counts(scores(alone / "run")["benchmarks"]["LogicVista"]) == (3, 2, 0)
    # as the reader was once: the reply ERROR was kept as the letters ERROR, and its verdict without a version
    path = next((alone.parent / "cache").rglob("*.sqlite*"))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE verdicts SET verdict = 'ERROR', reply = 'ERROR' WHERE reply = 'B'")
    stored = alone / "run" / "verdicts.jsonl"
    rows = [json.loads(line) for line in stored.read_text().splitlines()]
    for row in rows:
        row.pop("reader", None)
    stored.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = len(healthy.requests)
    assert vlm("--judge-base-url", healthy.url, data=("LogicVista",))[0] == 0
    one = scores(alone / "run")["benchmarks"]["LogicVista"]
    assert counts(one) == (2, 2, 1) and one["undecided_reasons"] == {"judge gave no verdict": 1}
    assert not any("(LogicVista-" in text_of(body) for body in healthy.requests[asked:])
