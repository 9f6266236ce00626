"""lmdeploy's own command line, HTTP layer, tokenizer, chat template and image processor, with a scripted engine.

`python tests/eval/lmdeploy_engine.py serve api_server MODEL ...` runs `lmdeploy serve api_server MODEL ...` in an
environment of `scripts/setup_judge.sh`, `--http-only` or not, without a GPU. Replaced are the engines, which need one,
and three questions to the GPU. MODEL needs no weights. A request that reaches the engine prints a line `ENGINE {...}`.
"""

import dataclasses
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

FAULT = re.compile(r"FAULT (\w+)")  # a prompt that names one of lmdeploy's ResponseTypes gets it instead of a reply


def reply_to(prompt: str) -> str:
    r"""The reply to a prompt: a judge's is right if gold and answer share a word, a policy's is always the same.

    >>> reply_to("<|im_start|>user\nWhy?")
    'so \\boxed{7}'
    >>> shown = "=== REFERENCE ANSWER ABCDEF ===\na cat\n=== END\n=== STUDENT'S ANSWER ABCDEF ===\nthe {}\n=== END"
    >>> reply_to(shown.format("cat") + "VERDICT ABCDEF: CORRECT"), reply_to(shown.format("dog") + "VERDICT ABCDEF: X")
    ('VERDICT ABCDEF: CORRECT', 'VERDICT ABCDEF: INCORRECT')
    """
    if "VERDICT " not in prompt:
        return "so \\boxed{7}"
    gold, answer = re.findall(r"(?:REFERENCE|STUDENT'S) ANSWER \w+ ===\n(.*?)\n=== END", prompt, re.DOTALL)
    same = set(gold.lower().split()) & set(answer.lower().split())
    word = "UNSURE" if "perhaps" in answer else "CORRECT" if same else "INCORRECT"
    return f"VERDICT {prompt.rsplit('VERDICT ', 1)[1][:6]}: {word}"


class Handle:
    """What AsyncEngine draws one response at a time from."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    async def async_stream_infer(
        self, session_id: int, input_ids: list[int], gen_config: Any, **given: Any
    ) -> AsyncIterator[Any]:
        """Yield the reply's tokens one by one, then the token that ends it, as far as max_new_tokens reaches."""
        from lmdeploy.messages import EngineOutput, RequestMetrics, ResponseType

        def output(status: ResponseType, token: int | None = None) -> EngineOutput:
            tokens = [] if token is None else [token]
            return EngineOutput(status, tokens, req_metrics=RequestMetrics(token_timestamp=time.time()))

        asked = {key: value for key, value in dataclasses.asdict(gen_config).items() if value is not None}
        prompt = self.tokenizer.decode(input_ids)
        seen = {"prompt": prompt, "tokens": len(input_ids), "multimodal": bool(given.get("multimodal"))}
        print("ENGINE", json.dumps({**seen, **asked}), flush=True)
        if fault := FAULT.search(prompt):
            yield output(ResponseType[fault[1]])
            return
        tokens = [*self.tokenizer.encode(reply_to(prompt)), gen_config.stop_token_ids[0]][: gen_config.max_new_tokens]
        for token in tokens[:-1]:
            yield output(ResponseType.SUCCESS, token)
        yield output(ResponseType.FINISH, tokens[-1])

    async def async_cancel(self, session_id: int) -> None:
        """Nothing runs on."""

    async def async_end(self, session_id: int) -> None:
        """Nothing is kept."""


class Engine:
    """What AsyncEngine wants of TurboMind or of the PyTorch engine."""

    def __init__(self, model_path: str, engine_config: Any) -> None:
        from transformers import AutoTokenizer

        self.engine_config, self.tokenizer = engine_config, AutoTokenizer.from_pretrained(model_path)

    def create_instance(self) -> Handle:
        return Handle(self.tokenizer)

    def start_loop(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is held."""

    def get_schedule_metrics(self) -> Any:
        from lmdeploy.messages import ScheduleMetrics

        return ScheduleMetrics()

    async def get_health_status(self) -> dict[str, Any]:
        return {"alive": True, "message": "", "schedule_metrics": self.get_schedule_metrics()}


def main() -> None:
    """Run lmdeploy's command with the engines replaced."""
    import torch
    from lmdeploy import turbomind
    from lmdeploy.cli import serve
    from lmdeploy.cli.entrypoint import run
    from lmdeploy.serve.core.async_engine import AsyncEngine

    def build(self: Any, model_path: str, backend_config: Any = None, **_: Any) -> Engine:
        print("CONFIG", type(backend_config).__name__, flush=True)
        return Engine(model_path, backend_config)

    AsyncEngine._build_turbomind = AsyncEngine._build_pytorch = build
    turbomind.is_available = lambda: True  # its library wants CUDA's; then models choose their engine as on a GPU
    serve.get_max_batch_size = lambda device: 128  # asks the GPU for its name
    torch.cuda.mem_get_info = lambda device=0: (0, 0)  # asked before a model with images is loaded, which here is none
    run()


if __name__ == "__main__":
    main()
