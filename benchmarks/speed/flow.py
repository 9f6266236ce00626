"""Cost of scoring with the flow field and of its update by row shape, compared with a scorer of whole rows.

    .venv/bin/python benchmarks/speed/flow.py [--quick] [--width 512] [--depth 4] [--rounds 5] [--json FILE]

The whole-row scorer works like the released code: it keeps the latents of prompt, image, response and padding
positions and scores them layer by layer. Ours keeps only response positions and scores all layers in one call.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from measuring import (
    Patience,
    add_options,
    alternate,
    matmul_peak,
    peak_bytes,
    same_round_ratio,
    spread,
    table,
    write_results,
)

from rlfr_vlm.files import JsonObject
from rlfr_vlm.flow import (
    FlowSpec,
    VelocityField,
    build_field,
    resolve_layers,
    token_flow_losses,
    velocity_deviation,
)

LAYERS = (0.25, 0.5, 0.75)
BLOCKS = 36  # decoder blocks of the policy
PROMPTS, RESPONSES = (0, 256, 1024), (128, 512, 2048)
QUICK_PROMPTS, QUICK_RESPONSES = (0, 1024), (128, 512)
# Values of one quantity while the other two stay at their base value.
BASE = {"response tokens": 256, "layers": 3, "samples": 4}
GROWTH = {"response tokens": (128, 256, 512, 1024), "layers": (1, 2, 4, 8), "samples": (1, 2, 4, 8)}
T = 0.8  # flow timestep of the scores


def new_field(width: int, depth: int, device: str, layers: Sequence[float] = LAYERS) -> tuple[VelocityField, FlowSpec]:
    """Build a field with random weights."""
    spec = FlowSpec(width, depth, BLOCKS, tuple(layers), resolve_layers(layers, BLOCKS), context_mode="token_pre")
    field = build_field(spec).to(device)
    for parameter in field.parameters():  # a new field has zero weights, a fitted one has not
        torch.nn.init.normal_(parameter, std=0.02)
    return field, spec


def flops(tokens: int, width: int, depth: int) -> float:
    """FLOPs of one evaluation at all layers: 2 (5N + 7) D^2 per token and layer."""
    return 2.0 * (5 * depth + 7) * width**2 * tokens * len(LAYERS)


@torch.no_grad()
def score_response(field: VelocityField, spec: FlowSpec, rows: torch.Tensor, response: int) -> torch.Tensor:
    """Score the response tokens of all layers in one call, as the toolkit does."""
    hidden = rows[:, :, -response:].clone()
    inputs = spec.inputs(hidden, torch.ones(rows.shape[1], response, device=rows.device), response)
    return velocity_deviation(field, inputs, [T])


@torch.no_grad()
def score_whole_rows(field: VelocityField, spec: FlowSpec, rows: torch.Tensor, response: int) -> torch.Tensor:
    """Score all positions of a copy of the rows layer by layer, as the released code does."""
    latents = rows.clone()
    scores = []
    for number, layer in enumerate(spec.layer_indices):
        target, cond = latents[number], latents[number].roll(-1, dims=1)
        noise = torch.randn_like(target)
        x_t = T * target + (1 - T) * noise
        time = torch.full(target.shape[:-1], T, device=target.device)
        depth = torch.full(target.shape[:-1], layer / spec.num_layers, device=target.device)
        velocity = field(x_t, time, cond, depth, None)
        scores.append((velocity - (target - noise)).square().mean(dim=-1) * T / (1 - T))
    return torch.stack(scores).mean(dim=0)[:, -response:]


def update(field: VelocityField, spec: FlowSpec, rows: torch.Tensor, response: int) -> None:
    """Compute loss and gradients of an update on the response tokens."""
    hidden = rows[:, :, -response:].clone()
    inputs = spec.inputs(hidden, torch.ones(rows.shape[1], response, device=rows.device), response)
    token_flow_losses(field, inputs, noise_repeats=1).mean().backward()
    field.zero_grad()


def measure_shape(
    prompt: int, response: int, options: argparse.Namespace, device: str, peak: float, patience: Patience
) -> JsonObject:
    """Measure both scorers and the update for rows of one shape."""
    field, spec = new_field(options.width, options.depth, device)
    rows = torch.randn(len(LAYERS), options.rows, prompt + response, options.width, device=device)
    arguments = (field, spec, rows, response)
    works: dict[str, Callable[[], object]] = {
        "ours": partial(score_response, *arguments),
        "whole rows": partial(score_whole_rows, *arguments),
        "update": partial(update, *arguments),
    }
    seconds = alternate(works, options.rounds, patience)
    memory = {name: peak_bytes(work) for name, work in works.items()}
    work = flops(options.rows * response, options.width, options.depth)
    return {
        "prompt": prompt,
        "response": response,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "peak_bytes": memory,
        "times_faster": same_round_ratio(seconds["whole rows"], seconds["ours"]),
        "memory_share": memory["ours"] / max(memory["whole rows"], 1.0),
        "share_of_matmul_peak": work / spread(seconds["ours"])["min"] / peak,
    }


def measure_growth(options: argparse.Namespace, device: str, patience: Patience) -> dict[str, JsonObject]:
    """Measure scoring time as one quantity grows and fit the exponent of each quantity."""
    works: dict[str, Callable[[], object]] = {}
    for quantity, values in GROWTH.items():
        for value in values:
            size = {**BASE, quantity: value}
            layers = [(number + 1) / (size["layers"] + 1) for number in range(size["layers"])]
            field, spec = new_field(options.width, options.depth, device, layers)
            rows = torch.randn(size["layers"], size["samples"], size["response tokens"], options.width, device=device)
            works[f"{quantity} {value}"] = partial(score_response, field, spec, rows, size["response tokens"])
    seconds = alternate(works, options.rounds, patience)
    growth: dict[str, JsonObject] = {}
    for quantity, values in GROWTH.items():
        best = [min(seconds[f"{quantity} {value}"]) for value in values]
        growth[quantity] = {"values": values, "seconds": best, "exponent": exponent(values, best)}
    return growth


def exponent(values: Sequence[float], seconds: Sequence[float]) -> float:
    """Exponent of cost as a function of a quantity, by least squares on logarithms; 1 is linear.

    >>> round(exponent([1, 2, 4], [3.0, 12.0, 48.0]), 6)
    2.0
    """
    x, y = ([math.log(number) for number in numbers] for numbers in (values, seconds))
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / sum((a - x_mean) ** 2 for a in x)


def measure(options: argparse.Namespace, patience: Patience) -> JsonObject:
    """Measure all shapes and growths; returns this script's entry in the results file."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peak = matmul_peak(torch.float32, max(options.width, 1024))
    prompts, responses = (QUICK_PROMPTS, QUICK_RESPONSES) if options.quick else (PROMPTS, RESPONSES)
    shapes = [
        measure_shape(prompt, response, options, device, peak, patience)
        for prompt in prompts
        for response in responses
    ]
    growth = measure_growth(options, device, patience)
    return {
        "width": options.width,
        "depth": options.depth,
        "rows": options.rows,
        "device": device,
        "matmul_peak_flops": peak,
        "shapes": shapes,
        "growth": growth,
    }


HEAD = ("prompt", "response", "ours, ms", "whole rows, ms", "times faster", "memory", "update, ms", "of matmul peak")


def report(result: JsonObject) -> str:
    """Format the table of a result and the lines below it."""
    exponents = ", ".join(f"({quantity})^{growth['exponent']:.2f}" for quantity, growth in result["growth"].items())
    return (
        f"{table(HEAD, [_row(shape) for shape in result['shapes']])}\n\n"
        f"Width {result['width']}, depth {result['depth']}, {result['rows']} rows, {len(LAYERS)} layers, "
        f"{result['device']}; matmul peak {result['matmul_peak_flops'] / 1e9:.0f} GFLOP/s.\n"
        f"Cost grows with {exponents}."
    )


def _row(shape: JsonObject) -> list[object]:
    ours, whole_rows, update_ms = (
        f"{1e3 * shape['seconds'][name]['median']:.1f}" for name in ("ours", "whole rows", "update")
    )
    faster, memory, share = shape["times_faster"], shape["memory_share"], shape["share_of_matmul_peak"]
    return [
        shape["prompt"],
        shape["response"],
        ours,
        whole_rows,
        f"{faster:.2f}",
        f"{memory:.2f}",
        update_ms,
        f"{share:.0%}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--rows", type=int, default=4, help="responses per batch")
    parser.add_argument("--rounds", type=int, help="(default: 5, with --quick 2)")
    parser.add_argument("--quick", action="store_true", help="fewer shapes and rounds")
    add_options(parser)
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    patience = Patience(options.patience)
    result = measure(options, patience)
    print(report(result))
    write_results(options.json, "flow", result, patience)


if __name__ == "__main__":
    main()
