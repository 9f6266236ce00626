"""Pool of grading workers: time limits, bursts, forks, kills, and cleanup of all processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import GradingPool, Item, PoolSettings, Reason, Verdict, grade_many, shared_pool, verify_answer
from rlfr_vlm.grading.verdict import right, undecided

EASY = {"gold": r"\sqrt{12}", "answer": r"2\sqrt{3}"}
WRONG = {"gold": r"\sqrt{12}", "answer": r"2\sqrt{5}"}
ENDLESS = {"gold": "1", "answer": r"\int_0^\infty e^{-x^2}\sin(x^3+\ln x)dx"}  # SymPy looks for a closed form

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def pool():
    """One pool for many tests: starting its server takes two seconds. It starts again after a kill or `close`."""
    with GradingPool(PoolSettings(workers=2, time_limit=1.0)) as pool:
        yield pool


def verdicts(decisions):
    return [decision.verdict.value for decision in decisions]


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as stream:
        return [int(child) for child in stream.read().split()]


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone_within(pids: list[int], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def test_decisions_keep_their_order_and_a_time_out_affects_only_its_pair(pool):
    pairs = [EASY, ENDLESS, WRONG, *[EASY, WRONG] * 20]
    decisions = pool.compare(pairs)
    assert verdicts(decisions) == ["right", "undecided", "wrong", *["right", "wrong"] * 20]
    assert decisions[1].reason == Reason.TIME_OUT


def test_a_burst_causes_no_false_time_outs(pool):
    """Two workers get more than 1 s of work with a limit of 1 s. The time limit of a pair starts with its grading."""
    count, seconds = 200, 0.0
    while seconds <= 1.0:  # on a fast machine the burst grows
        pairs = [{"gold": f"x^2+{n}x+1", "answer": f"1+{n}x+x^2+0"} for n in range(count)]
        start = time.monotonic()
        decisions = pool.compare(pairs)
        seconds, count = time.monotonic() - start, 4 * count
        assert set(verdicts(decisions)) == {"right"}


def test_an_interrupted_call_leaves_no_replies_for_the_next(pool, monkeypatch):
    wrong = [{"gold": "x+1", "answer": f"x+{n}"} for n in (2, 3, 4)]
    assert verdicts(pool.compare([EASY])) == ["right"]
    real, calls = pool._server.stdout, []

    class Interrupting:
        def readline(self):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real.readline()

        close, fileno = real.close, real.fileno

    pool._server.stdout = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        pool.compare([EASY] * 6)
    assert verdicts(pool.compare(wrong)) == ["wrong"] * 3


def test_invalid_settings_raise_an_error():
    for settings in ({"workers": -1}, {"time_limit": 0.0}):
        with pytest.raises(UserError, match="grading_workers"):
            PoolSettings(**settings)


def test_the_same_settings_share_a_pool():
    assert shared_pool(PoolSettings(2, 1.0)) is shared_pool(PoolSettings(2, 1.0)) is not shared_pool()


LONG_TEXTS = [
    "a" * 1999 + "1",
    "the chance of " * 60 + "3",
    "`" * 1990 + "x",
    "{" * 999 + "}" * 999,
    "1 " * 999,
    "\\text{" * 280,
    "(" * 1999,
    "-'" * 999,
]


def executed_lines(function, *arguments):
    """Number of lines of Python that a call executes."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.timeout(60)  # a regular expression that backtracks without end
@pytest.mark.parametrize("text", LONG_TEXTS, ids=lambda text: text[:8])
def test_rules_are_linear_in_the_length_of_the_text(text):
    from rlfr_vlm.grading.rules import apply_rules

    for gold in ("5", "x+1", "even", r"\text{no solution}"):
        for pair in ((gold, text), (text, gold)):
            # at most 84 lines a character; in quadratic time more than 1,000
            assert executed_lines(apply_rules, *pair) < 2_000 + 200 * len(text), pair


def test_threads_share_a_pool(pool):
    """Also when its server is not running yet."""
    pool.close()
    results: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: results.append(verdicts(pool.compare([EASY, WRONG])))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [["right", "wrong"]] * 8


def recorded_limits(monkeypatch, pool, pairs, ask):
    """Return the decisions on pairs by two workers with a limit of 1 s, and the limits that pairs were given."""
    assert pool.settings == PoolSettings(workers=2, time_limit=1.0)
    asked: list[float] = []

    def recorded(self, pairs, indices, limit):
        asked.extend([limit] * len(indices))
        return ask(self, pairs, indices, limit)

    monkeypatch.setattr(GradingPool, "_ask", recorded)
    return pool.compare(pairs), asked


def test_a_batch_of_endless_answers_has_a_budget(monkeypatch, pool):
    """64 answers that never end: each gets a share of the limit, and few get all of it. Others are graded."""
    endless = [{**ENDLESS, "gold": str(number)} for number in range(64)]
    pairs = [*endless[:32], EASY, WRONG, *endless[32:]]
    decisions, asked = recorded_limits(monkeypatch, pool, pairs, GradingPool._ask)
    assert verdicts(decisions) == ["undecided"] * 32 + ["right", "wrong"] + ["undecided"] * 32
    # 16 shares of 0.08 and 50 of 0.05. The budget of 2 + 0.01 * 66 time-outs has no third one: 5.8 CPU seconds.
    assert asked == [0.08] * 16 + [0.05] * 50 + [1.0] * 2


def by_need(self, pairs, indices, limit):
    """Return decisions as workers would that need as many CPU seconds as the gold says."""
    return {
        index: right("algebra") if float(pairs[index]["gold"]) <= limit else undecided("algebra", Reason.TIME_OUT)
        for index in indices
    }


@pytest.mark.parametrize(
    ("needs", "limits", "num_right"),
    [
        ([0.01] * 100, [0.08] * 100, 100),
        ([9.0, 0.01] * 32, [0.08] * 64 + [1.0] * 2, 32),  # half of a batch never ends: the share stays
        ([0.5] * 40, [0.08] * 16 + [0.05] * 24 + [1.0] * 40, 40),  # slow answers end and use up no budget
        ([0.01] * 16 + [9.0] * 48, [0.08] * 64 + [1.0] * 2, 16),
        ([0.01] * 16 + [9.0] * 112, [0.08] * 64 + [0.05] * 64 + [1.0] * 3, 16),  # 48 of 64 ran over; 3.28 time-outs
        ([9.0] * 2, [1.0] * 2, 0),
    ],
)
def test_limits_follow_from_the_order_of_the_pairs(monkeypatch, pool, needs, limits, num_right):
    pairs = [{"gold": str(need), "answer": "x"} for need in needs]
    decisions, asked = recorded_limits(monkeypatch, pool, pairs, by_need)
    assert asked == limits
    assert verdicts(decisions).count("right") == num_right


@linux
def test_time_is_counted_by_the_processor_not_by_the_clock():
    """A worker that is stopped for longer than its time limit has not used it up."""
    with GradingPool(PoolSettings(workers=1, time_limit=1.0)) as pool:
        pool.compare([EASY])
        worker = children(pool.server_pid)[0]
        os.kill(worker, signal.SIGSTOP)
        threading.Timer(1.5, os.kill, (worker, signal.SIGCONT)).start()
        start = time.monotonic()
        assert verdicts(pool.compare([EASY])) == ["right"]
        assert time.monotonic() - start > 1.2
        assert children(pool.server_pid) == [worker]


@pytest.mark.parametrize(
    "answer",
    ["10^{10^{10}}", "99999999!", r"\sum_{i=1}^{10^{9}} i!", r"\binom{10^9}{10^8}", "9^{9^{9}}", "((7!)!)!",
     "x^{10^{10}}", r"\prod_{i=1}^{\infty} i", r"((10^5)^5)^{5^9}", r"e^{e^{e^{10}}}"],
)  # fmt: skip
def test_enormous_numbers_are_not_computed(answer):
    for pair in (Item("x+1", answer=answer), Item(answer, answer="x+1")):
        start = time.process_time()
        [grade] = grade_many([pair])
        assert (grade.verdict, grade.reason) == (Verdict.UNDECIDED, Reason.TOO_LARGE)
        assert time.process_time() - start < 0.5


@pytest.mark.parametrize("value", ["2^{1009}", r"\frac{100!}{2^{50}}", "10^{100}", r"\sum_{k=1}^{100} k", "x^{12}"])
def test_large_numbers_of_real_answers_are_computed(value):
    grades = grade_many([Item(value, answer=f"{value} + 0"), Item(value, answer=f"{value} + 1")])
    assert [grade.verdict for grade in grades] == [Verdict.RIGHT, Verdict.WRONG]


@linux
def test_a_killed_worker_is_replaced(pool):
    assert verdicts(pool.compare([EASY])) == ["right"]
    workers = children(pool.server_pid)
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    assert verdicts(pool.compare([EASY, WRONG])) == ["right", "wrong"]
    assert not set(children(pool.server_pid)) & set(workers)


def test_a_killed_server_is_replaced(pool):
    pool.compare([EASY])
    killer = threading.Timer(0.3, os.kill, (pool.server_pid, signal.SIGKILL))
    killer.start()
    assert verdicts(pool.compare([ENDLESS, EASY, WRONG])) == ["undecided", "right", "wrong"]


@linux
def test_close_leaves_no_process(pool):
    pool.compare([EASY])
    pids = [pool.server_pid, *children(pool.server_pid)]
    pool.close()
    assert gone_within(pids, 3)


def test_grade_many_accepts_a_pool(pool):
    pool.close()
    assert pool.server_pid is None
    grades = grade_many([Item(r"\sqrt{12}", r"\boxed{2\sqrt{3}}")], pool=pool)
    assert grades[0].verdict is Verdict.RIGHT and grades[0].path == "algebra"
    assert pool.server_pid is not None


START_AND_HANG = """
import sys, threading
from rlfr_vlm.grading import GradingPool, PoolSettings
pool = GradingPool(PoolSettings(workers=2, time_limit=60))
pool.compare([{"gold": "2n", "answer": "n+n"}])
print(pool.server_pid, flush=True)
pool.compare([{"gold": "1", "answer": r"\\int_0^\\infty e^{-x^2}\\sin(x^3+\\ln x)dx"}])
"""


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_is_left_when_the_parent_is_killed_while_grading(number):
    process = subprocess.Popen(
        [sys.executable, "-c", START_AND_HANG], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    server = int(process.stdout.readline())
    pids = [server, *children(server)]
    time.sleep(0.5)
    process.send_signal(number)
    process.wait(timeout=20)
    assert len(pids) == 3 and gone_within(pids, 5)


def _grade_in_child(queue):
    queue.put([verify_answer(gold=r"\sqrt{12}", answer=r"2\sqrt{3}").verdict.value, os.getpid()])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_starts_a_new_server(method):
    assert verify_answer(gold=r"\sqrt{12}", answer=r"2\sqrt{3}").verdict is Verdict.RIGHT
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_grade_in_child, args=(queue,), daemon=True)  # like the workers of a DataLoader
    process.start()
    assert queue.get(timeout=60)[0] == "right"
    process.join()
    # The parent's server still works.
    assert verify_answer(gold=r"\sqrt{12}", answer=r"2\sqrt{5}").verdict is Verdict.WRONG


class _GradedDataset:
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> str:
        return verify_answer(gold=f"{index}n+n", answer=f"n+{index}n").verdict.value


def test_works_inside_data_loader_workers():
    from torch.utils.data import DataLoader

    batches = list(DataLoader(_GradedDataset(), batch_size=2, num_workers=2))  # type: ignore[arg-type]
    assert batches == [["right", "right"], ["right", "right"]]


HOSTILE = {
    "tower": "10^(10^10)", "braced tower": "10^{10^{10}}", "factorial": "99999999!",
    "nested braces": "{" * 10_000 + "}" * 10_000,
    "nested roots": r"\sqrt{" * 250 + "2" + "}" * 250, "megabyte": "a" * 1_000_000, "digits": "9" * 1_900,
    "NUL": "7\x00\x00x", "lone surrogate": "x\ud800", "fractions": r"\frac" * 390, "sum": r"\sum_{i=1}^{10^{9}} i!",
    "parentheses": "(" * 900 + "x" + ")" * 900,
    "code": "__import__('os').system('touch pwned')", "format": "%s%n{0}{{7*7}}",
}  # fmt: skip


@pytest.mark.timeout(60)  # an answer that the pool does not stop
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_end_at_the_time_limit(name, tmp_path, monkeypatch):
    assert PoolSettings().time_limit <= 2
    verify_answer(gold="2n", answer="n+n")  # start the pool
    monkeypatch.chdir(tmp_path)
    for gold in ("7", "x+1"):
        result = verify_answer(gold=gold, answer=HOSTILE[name])
        assert result.verdict in (Verdict.WRONG, Verdict.UNDECIDED)
    assert not list(tmp_path.iterdir())


def test_evaluating_text_is_impossible_in_a_worker():
    code = (
        "from rlfr_vlm.grading import worker, algebra; algebra.patch_libraries()\n"
        "worker.grade_pair({'gold': 'x+1', 'answer': '1+x+0'}); worker.forbid_evaluation()\n"
        "print(worker.grade_pair({'gold': '2n+1.5', 'answer': 'n+n+3/2'}).verdict.value)\n"
        "for attempt in (lambda: eval('1+1'), lambda: exec('x=1'), lambda: __import__('sympy').parse_expr('1+1')):\n"
        "    try: print('ran', attempt())\n"
        "    except PermissionError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:4] == ["right", *["text is never evaluated"] * 3]


@linux
def test_memory_of_a_worker_is_bounded():
    with GradingPool(PoolSettings(workers=1, time_limit=20, memory_mb=64)) as pool:
        decisions = pool.compare([{"gold": "x", "answer": "2^{2^{35}}"}, EASY])
        worker = children(pool.server_pid)[0]
        [limit] = [line for line in Path(f"/proc/{worker}/limits").read_text().splitlines() if "address space" in line]
    assert decisions[0].verdict is not Verdict.RIGHT
    assert decisions[1].right
    assert 128 * 2**20 < int(limit.split()[3]) < 4 * 2**30  # twice the memory in use and 64 MB
