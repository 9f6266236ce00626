"""Fields of requests that servers name differently. A server's list of models says whose it is (`owned_by`).

Read in vLLM 0.31 and lmdeploy 0.18; `tests/end_to_end/eval/test_lmdeploy_http.py` asks lmdeploy's real HTTP layer.
"""

from rlfr_vlm.files import JsonObject

VLLM, LMDEPLOY = "vllm", "lmdeploy"
PIXEL_LIMITS = ("min_pixels", "max_pixels")
# Servers fill fields that a request leaves out from the model's generation_config.json, and lmdeploy else draws from
# the 50 most probable tokens. These values turn that off. No top_k is -1 for vLLM; lmdeploy refuses -1 and wants 0.
_NEUTRAL: dict[object, JsonObject] = {
    VLLM: {"repetition_penalty": 1.0, "min_p": 0.0, "top_k": -1},
    LMDEPLOY: {"repetition_penalty": 1.0, "min_p": 0.0, "top_k": 0},
}


def neutral_sampling(owner: object) -> JsonObject:
    """Return the fields with which only a request decides about sampling; {} for servers that may not know them.

    >>> neutral_sampling("lmdeploy")["top_k"], neutral_sampling("openai")
    (0, {})
    """
    return dict(_NEUTRAL.get(owner, {}))


def with_pixel_limits(body: JsonObject, owner: object) -> JsonObject:
    """Return a request in which the server finds the limits of pixels that `mm_processor_kwargs` has.

    vLLM reads them there. lmdeploy reads them beside each image's address for Qwen2-VL and Qwen2.5-VL, and under
    `image` in `mm_processor_kwargs` for newer families; elsewhere it ignores them.
    """
    extra = body.get("extra_body") or {}
    given = extra.get("mm_processor_kwargs")
    given = given if isinstance(given, dict) else {}
    limits = {name: given[name] for name in PIXEL_LIMITS if name in given}
    if owner != LMDEPLOY or not limits:
        return body
    others = {name: value for name, value in given.items() if name not in limits}
    messages = [{**one, "content": _with_limits(one["content"], limits)} for one in body["messages"]]
    return {**body, "messages": messages, "extra_body": {**extra, "mm_processor_kwargs": {"image": limits, **others}}}


def _with_limits(content: str | list[JsonObject], limits: JsonObject) -> str | list[JsonObject]:
    """Return a message's content with the limits beside the address of each image."""
    if isinstance(content, str):
        return content
    return [
        {**part, "image_url": {**part["image_url"], **limits}} if part["type"] == "image_url" else part
        for part in content
    ]
