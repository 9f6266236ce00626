"""What this project sends to lmdeploy, asked of its real command line and HTTP layer; only its engine is scripted.

Wants an environment with lmdeploy: `bash scripts/setup_judge.sh --http-only`, in a minute, without a GPU.
"""

import asyncio
import base64
import copy
import io
import json
import os
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import Verdict
from rlfr_vlm.judging.client import Judge
from rlfr_vlm.judging.replies import JudgeReason
from rlfr_vlm.sampling.endpoint import EndpointEngine
from rlfr_vlm.sampling.engine import Sampling
from rlfr_vlm.servers.endpoint import Endpoint, Fault
from rlfr_vlm.servers.request_fields import with_pixel_limits
from rlfr_vlm.servers.server import Server, free_port
from tests.models.small_families import VISION, built

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
ENGINE = ROOT / "tests" / "eval" / "lmdeploy_engine.py"
NAMED_BY = "LMDEPLOY_PYTHON"  # variable that names the interpreter of another environment with lmdeploy
KEY, OTHER_KEY = "sk-lmdeploy-right-1234", "sk-lmdeploy-wrong-5678"
SERVE = "serve api_server {model} --model-name {name} --server-name {host} --server-port {port}"
# What instruct models ship, and what lmdeploy uses for each field that a request leaves out.
GENERATION_CONFIG = {"repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "do_sample": True}
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if note is defined %}{{ note }}{% endif %}<|im_start|>assistant"
)
ROWS = [
    {"id": "right", "problem": "Why?", "answer": "because the winter was cold"},
    {"id": "wrong", "problem": "How?", "answer": "by a slow river boat"},
    {"id": "unsure", "problem": "Who?", "answer": "the old captain"},
    {"id": "by rule", "problem": "Number?", "answer": "7"},
]
ANSWERS = {"Why?": "a cold season came", "How?": "on foot over hills", "Who?": "perhaps his nephew"}


@pytest.fixture(scope="module")
def lmdeploy():
    """The command that stands for `lmdeploy`."""
    places = (ROOT / name / "bin" / "python" for name in (".venv-judge-http", ".venv-judge"))
    python = next((path for path in (Path(os.environ.get(NAMED_BY, "")), *places) if path.is_file()), None)
    if python is None:
        pytest.skip(f"no lmdeploy here: run bash scripts/setup_judge.sh --http-only, or name one with {NAMED_BY}")
    return [str(python), str(ENGINE)]


@pytest.fixture(scope="module")
def models(tmp_path_factory, make_policy, processor):
    """Folders without weights, which the scripted engine does not read: Qwen2, Qwen2.5-VL and Qwen3-VL."""
    from transformers import Qwen2Config

    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer._processor_class = None
    tokenizer.chat_template = TEMPLATE
    text = Qwen2Config(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                       num_key_value_heads=2, intermediate_size=48, max_position_embeddings=4096,
                       eos_token_id=tokenizer.eos_token_id, architectures=["Qwen2ForCausalLM"])  # fmt: skip
    eyes, newer = make_policy(num_layers=1).config, built(VISION["Qwen3-VL"])
    eyes.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    newer.policy.config.architectures = ["Qwen3VLForConditionalGeneration"]
    folder = tmp_path_factory.mktemp("models")
    parts = {"text": (text, tokenizer), "eyes": (eyes, processor), "newer": (newer.policy.config, newer.processor)}
    for name, (config, processing_class) in parts.items():
        config.save_pretrained(folder / name)
        processing_class.save_pretrained(folder / name)
        (folder / name / "generation_config.json").write_text(json.dumps(GENERATION_CONFIG))
    return folder


@contextmanager
def started(lmdeploy, model, log, *flags):
    """A server of a model by the name `m`, once it is healthy; its list of models may want a key."""
    port = free_port()
    command = SERVE.format(model=model, name="m", host="127.0.0.1", port=port).split()
    with Server([*lmdeploy, *command, *flags], f"http://127.0.0.1:{port}/v1", log) as running:
        until = time.monotonic() + 240
        while time.monotonic() < until and running.alive:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.2)
        else:
            pytest.fail(running.log_end())
        yield running


@pytest.fixture(scope="module")
def server(lmdeploy, models, tmp_path_factory):
    """Qwen2.5-VL, for those who have a key."""
    flags = ("--session-len", "4096", "--api-keys", KEY, "another-key")
    with started(lmdeploy, models / "eyes", tmp_path_factory.mktemp("log") / "eyes", *flags) as running:
        yield running


@pytest.fixture(scope="module")
def newer_server(lmdeploy, models, tmp_path_factory):
    """Qwen3-VL, which only lmdeploy's PyTorch engine knows."""
    with started(lmdeploy, models / "newer", tmp_path_factory.mktemp("log") / "newer") as running:
        yield running


def requests_in(log):
    """What reached the engine of a server, a request each."""
    lines = log.read_text(errors="replace").splitlines()
    return [json.loads(line.removeprefix("ENGINE ")) for line in lines if line.startswith("ENGINE ")]


def last(server, *fields):
    asked = requests_in(server.log)[-1]
    return [asked[field] for field in fields]


def asking(server, use, key=KEY, model="m"):
    """What `use` makes of an endpoint."""

    async def run():
        async with Endpoint(server.url, model, key, first_delay=0.01, max_tries=2) as endpoint:
            return await use(endpoint)

    return asyncio.run(run())


def ask(server, text="1+1?", key=KEY, model="m", **fields):
    """The reply to a request, or its fault."""
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 32, **fields}
    try:
        return asking(server, lambda endpoint: endpoint.ask(body), key, model)
    except Fault as fault:
        return fault


def policy(body, n):
    return f"\\boxed{{{ANSWERS.get(body['messages'][-1]['content'], '7')}}}"


@pytest.fixture
def local_judge(lmdeploy, models, alone, monkeypatch):
    """LOCAL_LLM, with the command where `scripts/setup_judge.sh` puts it."""
    path = alone / ".venv-judge" / "bin" / "lmdeploy"
    path.parent.mkdir(parents=True)
    path.write_text(f'#!/bin/sh\nexec "{lmdeploy[0]}" "{lmdeploy[1]}" "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("LOCAL_LLM", str(models / "text"))


def test_a_judge_is_served_asked_and_stopped(local_judge, models, serve, toy, run_eval, scores, alone, monkeypatch):
    monkeypatch.setenv("JUDGE_EXTRA_BODY", '{"chat_template_kwargs": {"note": "Be brief."}}')
    asked = ("--base-url", serve(policy).url, "--suite", toy(rows=ROWS), "--data-dir", "data", "--out", "run")
    code, _, err = run_eval("lm", *asked, "--judge-force", "--show-undecided")
    assert code == 0, err
    found = scores(alone / "run")
    one = found["benchmarks"]["toy"]
    assert (one["right"], one["wrong"], one["undecided"]) == (2, 1, 1)
    assert found["judge"].startswith(str(models / "text"))
    lines = (alone / "run" / "verdicts.jsonl").read_text().splitlines()
    judged = {row["id"].split("/")[1]: row for row in map(json.loads, lines) if row["by"] == "judge"}
    assert {name: row["verdict"] for name, row in judged.items()} == {
        "right": "right", "wrong": "wrong", "unsure": "undecided",
    }  # fmt: skip
    assert judged["unsure"]["reason"] == JudgeReason.UNSURE
    log = alone / "run" / "judge-server.log"
    assert "CONFIG TurbomindEngineConfig" in log.read_text()
    received = requests_in(log)
    assert len(received) == 12 + 3  # the known cases, and what rules left open
    for request in received:  # greedy, and nothing of the model's own settings
        assert (request["temperature"], request["repetition_penalty"], request["top_p"]) == (0.0, 1.0, 1.0)
        assert (request["max_new_tokens"], request["random_seed"]) == (1024, 0)
        assert request["prompt"].endswith("<|im_end|>\nBe brief.<|im_start|>assistant")
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(models / "text") in (p.info["cmdline"] or [])]


def test_a_local_judge_that_wants_a_key_is_one_message(local_judge, serve, toy, run_eval, monkeypatch):
    monkeypatch.setenv("JUDGE_CMD", f"{{lmdeploy}} {SERVE} --api-keys {KEY}")
    code, _, err = run_eval("lm", "--base-url", serve(policy).url, "--suite", toy(rows=ROWS), "--data-dir", "data")
    assert code == 2 and "the judge's server wants a key (HTTP 401)" in err and KEY not in err


def test_a_flag_that_lmdeploy_does_not_know_is_named(local_judge, serve, toy, run_eval, monkeypatch):
    monkeypatch.setenv("JUDGE_CMD", f"{{lmdeploy}} {SERVE} --max-len 5")
    code, _, err = run_eval("lm", "--base-url", serve(policy).url, "--suite", toy(rows=ROWS), "--data-dir", "data")
    assert code == 2 and "ended before it was ready" in err and "unrecognized arguments: --max-len 5" in err


def test_the_key_opens_and_another_is_refused_without_being_shown(server):
    [card] = asking(server, lambda endpoint: endpoint.models())
    assert (card["id"], card["owned_by"], card["root"]) == ("m", "lmdeploy", "m") and "max_model_len" not in card
    assert asking(server, lambda endpoint: endpoint.resolve_model("JUDGE_MODEL"))["max_model_len"] is None
    assert ask(server).text == "so \\boxed{7}" and ask(server, key="another-key").finish_reason == "stop"
    for key in (OTHER_KEY, ""):
        with pytest.raises(UserError, match=r"refuses the key.*401.*Unauthorized") as refused:
            ask(server, key=key)
        assert OTHER_KEY not in str(refused.value)
        with pytest.raises(UserError, match="401"):
            asking(server, lambda endpoint: endpoint.models(), key)


def test_what_the_server_refuses_has_its_name(server):
    with pytest.raises(UserError, match=r"does not know 'other'.*404"):
        ask(server, model="other")
    with pytest.raises(UserError, match=r"does not serve 'other'; it serves m\. Name another with --model"):
        asking(server, lambda endpoint: endpoint.resolve_model("--model"), model="other")
    fault = ask(server, "long " * 2000)
    assert (fault.kind, fault.retryable) == ("too long", False) and "model context length (4096)" in str(fault)
    for fields in ({"temperature": 3.0}, {"top_p": 0.0}, {"extra_body": {"top_k": -1}}, {"max_tokens": 0}):
        fault = ask(server, **fields)
        assert (fault.kind, fault.retryable) == ("refused", False), fields
    assert "top_k -1 cannot be a negative integer" in str(ask(server, extra_body={"top_k": -1}))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("INTERNAL_ENGINE_ERROR", "server error"),
        ("ENGINE_STOP_ERROR", "server error"),
        ("SESSION_REPEAT", "server error"),
        ("INPUT_LENGTH_ERROR", "too long"),
        ("NOT_SUPPORTED", "refused"),
        ("CANCEL", "aborted"),
    ],
)
def test_what_the_engine_cannot_do_is_no_answer(server, answer, kind):
    assert ask(server, f"FAULT {answer}").kind == kind


def test_a_judges_verdicts_cut_and_too_long_ones_are_undecided(server):
    def judge(question="Why?", answer="the winter was cold", **settings):
        async def use(endpoint):
            return await Judge(endpoint, "lmdeploy", **settings).judge(question, ["because it was cold"], answer)

        return asking(server, use)

    assert judge().verdict is Verdict.RIGHT and judge(answer="no idea at all").verdict is Verdict.WRONG
    assert (judge(answer="perhaps").verdict, judge(answer="perhaps").reason) == (Verdict.UNDECIDED, JudgeReason.UNSURE)
    result = judge(max_tokens=4)
    assert (result.verdict, result.reason) == (Verdict.UNDECIDED, JudgeReason.CUT_OFF)
    assert result.usage.output_tokens == 4 and result.usage.input_tokens == last(server, "tokens")[0]
    result = judge("Why? " * 2000)
    assert (result.verdict, result.reason) == (Verdict.UNDECIDED, f"{JudgeReason.FAILED}: too long")


SAMPLING = "temperature = 0.6\ntop_p = 0.95\nseed = 5\nsamples = 2"


def evaluate(run_eval, server, suite, *more):
    return run_eval("lm", "--base-url", server.url, "--suite", suite, "--data-dir", "data", "--out", "run", *more)


def test_the_policys_sampling_arrives_and_nothing_of_the_models_own(server, toy, run_eval, scores, alone, monkeypatch):
    monkeypatch.setenv("RLFR_EVAL_API_KEY", KEY)
    before = len(requests_in(server.log))
    code, _, err = evaluate(run_eval, server, toy(2, sampling=SAMPLING))
    assert code == 0, err
    assert "the server does not say its context length" in err and KEY not in err
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert (one["answered"], one["right"], one["wrong"]) == (4, 0, 4)  # 0 + 0 and 1 + 1 are no 7
    received = requests_in(server.log)[before:]
    assert sorted(request["random_seed"] for request in received) == [5, 5, 6, 6]
    for request in received:
        assert (request["temperature"], request["top_p"], request["max_new_tokens"]) == (0.6, 0.95, 64)
        assert (request["top_k"], request["min_p"], request["repetition_penalty"]) == (0, 0.0, 1.0)
    code, _, err = evaluate(run_eval, server, toy(1, name="few"), "--out", "few", "--top-k", "5")
    assert code == 0 and last(server, "top_k") == [5], err


def test_raw_prompts_go_to_completions_and_stop_words_arrive(server, toy, run_eval, processor, monkeypatch):
    monkeypatch.setenv("RLFR_EVAL_API_KEY", KEY)
    code, _, err = evaluate(run_eval, server, toy(1), "--prompt", "qwen-box", "--max-tokens", "3")
    assert code == 0, err
    prompt, stops, most = last(server, "prompt", "stop_token_ids", "max_new_tokens")
    assert prompt.startswith("<|im_start|>system") and prompt.endswith("<|im_start|>assistant\n") and most == 3
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") in stops


def test_a_prompt_beyond_the_context_stops_the_run(server, toy, run_eval, monkeypatch):
    monkeypatch.setenv("RLFR_EVAL_API_KEY", KEY)
    rows = [{"id": "long", "problem": "long " * 2000, "answer": "7"}]
    code, _, err = evaluate(run_eval, server, toy(rows=rows))
    assert code == 2 and "toy/long/0: prompt and answer do not fit the model's context" in err


def test_a_policy_is_served_by_lmdeploys_other_engine_and_stopped(lmdeploy, models, toy, run_eval, alone, monkeypatch):
    command = " ".join([*lmdeploy, SERVE, "--backend pytorch"])
    monkeypatch.setenv("RLFR_EVAL_SERVER_CMD", command)
    asked = ("--suite", toy(2), "--data-dir", "data", "--out", "run")
    code, _, err = run_eval("lm", "--model", str(models / "text"), *asked)
    assert code == 0, err
    log = alone / "run" / "server.log"
    assert "CONFIG PytorchEngineConfig" in log.read_text() and len(requests_in(log)) == 2
    assert {request["top_k"] for request in requests_in(log)} == {0}
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(models / "text") in (p.info["cmdline"] or [])]


def picture(edge):
    """A square image as a data URL."""
    stream = io.BytesIO()
    Image.new("RGB", (edge, edge), (200, 10, 10)).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


@pytest.mark.parametrize(("name", "edge"), [("server", 28), ("newer_server", 32)])  # pixels at a token's edge
def test_images_arrive_and_limits_of_pixels_count(name, edge, request):
    server = request.getfixturevalue(name)
    parts = [{"type": "image_url", "image_url": {"url": picture(4 * edge)}}, {"type": "text", "text": "sum?"}]
    body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 32}
    limits = {"min_pixels": edge**2, "max_pixels": (2 * edge) ** 2}
    limited = {**body, "extra_body": {"mm_processor_kwargs": limits}}

    def tokens(body):
        reply = asking(server, lambda endpoint: endpoint.ask(body))
        assert last(server, "multimodal") == [True] and reply.text == "so \\boxed{7}"
        return reply.prompt_tokens

    whole = tokens(body)  # 4 x 4 tokens of the image
    assert tokens(limited) == whole  # lmdeploy ignores them where vLLM reads them
    assert tokens(with_pixel_limits(limited, "lmdeploy")) == whole - 4 * 4 + 2 * 2
    broken = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    assert ask(server, broken).kind == "refused"


def test_rlfr_sample_draws_by_the_request_alone(server, monkeypatch):
    monkeypatch.setenv("RLFR_API_KEY", KEY)
    row = {"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "sum?"}]}],
           "images": [Image.new("RGB", (56, 28))], "row_number": 0}  # fmt: skip
    engine = EndpointEngine(server.url, "m", Sampling(temperature=0.7, top_p=0.9, max_new_tokens=3))
    [sample] = engine.sample([row], [11])
    assert (sample.text, sample.truncated, sample.fault) == ("so \\", True, "")
    fields = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "random_seed", "max_new_tokens")
    assert last(server, *fields) == [0.7, 0.9, 0, 0.0, 1.0, 11, 3]
