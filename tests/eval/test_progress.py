"""Progress bars in a log file: a line for each state, so that `tail` and `grep` show them."""

from rlfr_eval.progress import answer_bar


def test_each_state_of_a_bar_is_a_line_of_a_log_file(capsys):
    """States were joined by carriage returns: one line of a log that grew for hours."""
    with answer_bar(4, "answers") as bar:
        bar.update(2)
        bar.refresh()
        bar.update(2)
    written = capsys.readouterr().err
    lines = written.splitlines()
    assert "\r" not in written and all(line.startswith("answers: ") for line in lines)
    assert [line.rsplit("|", 1)[1].split()[0] for line in lines] == ["0/4", "2/4", "4/4"]
