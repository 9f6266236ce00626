"""Fitting a flow field: tokens per second, and the share of the machine's matmul peak that it reaches.

    .venv/bin/python benchmarks/speed/fit.py [--widths 2048 3584] [--depth 4] [--tokens 256] [--rounds 5] [--json FILE]

One step is what `rlfr fit-flow` does beside the policy's pass: the loss, its gradients, an AdamW step. 6 (5N + 7) D^2
FLOPs a token, layer and noise copy; on a GPU under bfloat16 autocast, on a CPU in float32.
"""

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from measuring import Patience, add_options, alternate, matmul_peak, spread, table, write_results

from rlfr_vlm.flow import FlowSpec, build_field, token_flow_losses

LAYERS = (0.25, 0.5, 0.75)


def measure(width: int, options: argparse.Namespace, patience: Patience) -> dict[str, Any]:
    gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
    spec = FlowSpec(width, options.depth, 36, LAYERS, (9, 18, 27), context_mode="identity")
    field = build_field(spec).to(device)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    optimizer = torch.optim.AdamW(field.parameters(), lr=1e-4, fused=True)
    hidden = torch.randn(len(LAYERS), 1, options.tokens, width, device=device)
    inputs = spec.inputs(hidden, torch.ones(1, options.tokens, device=device), options.tokens)
    autocast: AbstractContextManager[Any] = torch.autocast("cuda", dtype) if gpu else nullcontext()

    def step() -> None:
        with autocast:
            loss = token_flow_losses(field, inputs, noise_repeats=options.repeats).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    peak = matmul_peak(dtype, width)
    seconds = alternate({"step": step}, options.rounds, patience)["step"]
    peak = max(peak, matmul_peak(dtype, width))  # the better one, where something else ran
    copies = options.tokens * options.repeats
    work = 6.0 * (5 * options.depth + 7) * width**2 * copies * len(LAYERS)
    return {
        "width": width, "depth": options.depth, "tokens": options.tokens, "repeats": options.repeats,
        "dtype": str(dtype).removeprefix("torch."), "seconds": spread(seconds), "matmul_peak_flops": peak,
        "tokens_per_second": options.tokens / spread(seconds)["median"],
        "share_of_matmul_peak": work / min(seconds) / peak,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[2048])
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256, help="response tokens of one step")
    parser.add_argument("--repeats", type=int, default=4, help="noise copies of each token")
    parser.add_argument("--rounds", type=int, default=5)
    add_options(parser)
    options = parser.parse_args()
    patience = Patience(options.patience)
    results = [measure(width, options, patience) for width in options.widths]
    print(table(
        ("width", "depth", "dtype", "step, s (min, median, max)", "tokens/s", "of matmul peak"),
        [(r["width"], r["depth"], r["dtype"], ", ".join(f"{r['seconds'][k]:.2f}" for k in ("min", "median", "max")),
          f"{r['tokens_per_second']:.0f}", f"{r['share_of_matmul_peak']:.0%}") for r in results],
    ))  # fmt: skip
    write_results(options.json, "fit", {"fields": results}, patience)


if __name__ == "__main__":
    main()
