"""Speed of fitting a flow field: tokens per second and share of the machine's matmul peak.

    .venv/bin/python benchmarks/speed/fit.py [--widths 2048 3584] [--depth 4] [--tokens 256] [--rounds 5] [--json FILE]

One step is a step of `rlfr fit-flow` without the policy's forward pass: loss, gradients and AdamW. It takes
6 (5N + 7) D^2 FLOPs per token, layer and noise copy, for depth N and width D. A GPU uses bfloat16 autocast, a CPU
float32. The share of a card's own peak is by peaks.py, for the cards that it knows.
"""

import argparse
from contextlib import AbstractContextManager, nullcontext

import torch
from measuring import Patience, add_options, alternate, matmul_peak, spread, table, write_results
from peaks import bf16_peak

from rlfr_vlm.files import JsonObject
from rlfr_vlm.flow import FlowSpec, build_field, token_flow_losses

LAYERS = (0.25, 0.5, 0.75)


def measure(width: int, options: argparse.Namespace, patience: Patience) -> JsonObject:
    """Measure a field of one width; returns its entry in the results file."""
    gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
    spec = FlowSpec(width, options.depth, 36, LAYERS, (9, 18, 27), context_mode="identity")
    field = build_field(spec).to(device)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    optimizer = torch.optim.AdamW(field.parameters(), lr=1e-4, fused=True)
    hidden = torch.randn(len(LAYERS), 1, options.tokens, width, device=device)
    inputs = spec.inputs(hidden, torch.ones(1, options.tokens, device=device), options.tokens)
    autocast: AbstractContextManager[object] = torch.autocast("cuda", dtype) if gpu else nullcontext()

    def step() -> None:
        with autocast:
            loss = token_flow_losses(field, inputs, noise_repeats=options.repeats).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    peak = matmul_peak(dtype, width)
    seconds = alternate({"step": step}, options.rounds, patience)["step"]
    peak = max(peak, matmul_peak(dtype, width))  # measured twice, in case another process ran
    copies = options.tokens * options.repeats
    work = 6.0 * (5 * options.depth + 7) * width**2 * copies * len(LAYERS)
    card = torch.cuda.get_device_name() if gpu else None
    card_peak = bf16_peak(card) if card else None
    return {
        "width": width,
        "depth": options.depth,
        "tokens": options.tokens,
        "repeats": options.repeats,
        "dtype": str(dtype).removeprefix("torch."),
        "seconds": spread(seconds),
        "matmul_peak_flops": peak,
        "tokens_per_second": options.tokens / spread(seconds)["median"],
        "share_of_matmul_peak": work / min(seconds) / peak,
        "card": card,
        "card_peak_flops": card_peak,
        "share_of_card_peak": work / min(seconds) / card_peak if card_peak else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[2048])
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256, help="response tokens per step")
    parser.add_argument("--repeats", type=int, default=4, help="noise copies per token")
    parser.add_argument("--rounds", type=int, default=5)
    add_options(parser)
    options = parser.parse_args()
    patience = Patience(options.patience)
    results = [measure(width, options, patience) for width in options.widths]
    rows = []
    for result in results:
        seconds = ", ".join(f"{result['seconds'][key]:.2f}" for key in ("min", "median", "max"))
        speed, share = f"{result['tokens_per_second']:.0f}", f"{result['share_of_matmul_peak']:.0%}"
        of_card = "unknown" if result["share_of_card_peak"] is None else f"{result['share_of_card_peak']:.0%}"
        rows.append((result["width"], result["depth"], result["dtype"], seconds, speed, share, of_card))
    head = ("width", "depth", "dtype", "step, s (min, median, max)", "tokens/s", "of matmul peak", "of card's peak")
    print(table(head, rows))
    write_results(options.json, "fit", {"fields": results}, patience)


if __name__ == "__main__":
    main()
