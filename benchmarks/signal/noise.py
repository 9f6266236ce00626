"""Measure how much of the token reward is the noise that was drawn, and what each way of drawing costs.

    python benchmarks/signal/noise.py --policy DIR --flow DIR --data FILE.jsonl [--n 100]

FILE.jsonl has responses of the policy (`rlfr sample`). Each way is measured twice under independent noise, and
compared with the mean of 48 points (24 draws shared by a group, with both signs).
"""

import argparse
import time

import torch

from rlfr_vlm.commands.inspect import InspectOptions
from rlfr_vlm.commands.inspected_responses import fit_to, load_policy_for, responses_of, whole_groups
from rlfr_vlm.data.load import read_rows
from rlfr_vlm.deviation import Scoring, StackedDeviations, score_responses
from rlfr_vlm.flow import NoisePlan, build_field, layer_deviations, load_field
from rlfr_vlm.flow.spec import FlowSpec
from rlfr_vlm.flow_options import FlowOptions
from rlfr_vlm.options import DataOptions
from rlfr_vlm.retest import row_correlation, sign_agreement
from rlfr_vlm.shaping import flow_rewards

PLANS = {
    "a draw for each token (paper)": NoisePlan("token"),
    "four draws for each token": NoisePlan("token", 4),
    "one draw for a response": NoisePlan("response"),
    "one draw for a response, both signs": NoisePlan("response", 1, True),
    "one draw for a group": NoisePlan("group"),
    "one draw for a group, both signs (default)": NoisePlan("group", 1, True),
    "no noise": NoisePlan("none"),
}
REFERENCE = NoisePlan("group", 24, True)
WIDTHS = ((128, 256), (512, 64), (1536, 16))  # width of the field, responses of 16 tokens
ROUNDS = 5


def agreement(options: argparse.Namespace, timestep: float) -> None:
    """Print sign agreement and correlation of two measurements, and with the reference."""
    inspected = InspectOptions(policy=[options.policy], given=True, batch_size=128)
    data = DataOptions(dataset_name=options.data)
    rows = whole_groups(read_rows(data, ("prompt", "verdict")), options.n)
    flow = load_field(options.flow)
    policy, processor = load_policy_for(options.policy, inspected, data)
    rows, responses, groups = responses_of(options.policy, policy, processor, rows, inspected)
    field, spec = fit_to(flow, policy, options.policy)
    plans = [(plan, seed) for plan in PLANS.values() for seed in (0, 1)] + [(REFERENCE, 2)]
    scorings = [Scoring(field, spec, [timestep], plan, seed) for plan, seed in plans]
    scored = score_responses(policy, processor, rows, responses, scorings, groups=groups, batch_size=128)
    stacked = [StackedDeviations.of(deviations) for deviations in scored]
    scores, mask = [one.values.mean(dim=(0, 1)) for one in stacked], stacked[0].mask
    rewards = [flow_rewards(values, mask, **FlowOptions().shaping()) for values in scores]
    print(f"| t = {timestep:g}: noise | sign | correlation | sign, mean of 48 points |\n|---|---|---|---|")
    for index, name in enumerate(PLANS):
        one, other = 2 * index, 2 * index + 1
        sign = sign_agreement(rewards[one], rewards[other])
        correlation = row_correlation(scores[one], scores[other], mask)
        print(f"| {name} | {sign:.3f} | {correlation:.3f} | {sign_agreement(rewards[one], rewards[-1]):.3f} |")


def cost() -> None:
    """Print the processor time of scoring with group noise and both signs over that of a draw for each token."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    for width, rows in WIDTHS:
        spec = FlowSpec(width, 4, 28, (0.25, 0.5, 0.75), (7, 14, 21))
        field = build_field(spec)
        inputs = spec.inputs(torch.randn(3, rows, 16, width, generator=generator), torch.ones(rows, 16), 16)
        noise = torch.randn(1, 3, rows, width, generator=generator)
        ways = ({"generator": generator}, {"row_noise": noise, "antithetic": True})
        seconds: tuple[list[float], list[float]] = ([], [])
        with torch.no_grad():
            for _ in range(ROUNDS):
                for way, times in zip(ways, seconds, strict=True):
                    start = time.process_time()
                    layer_deviations(field, inputs, [0.8], **way)
                    times.append(time.process_time() - start)
        print(f"width {width}: {min(seconds[1]) / min(seconds[0]):.2f} times the cost of a draw for each token")


def main() -> None:
    """Measure agreement at two timesteps, and cost."""
    parser = argparse.ArgumentParser(description="Measure the noise in the token reward, and what drawing costs.")
    parser.add_argument("--policy", required=True, help="folder of the policy")
    parser.add_argument("--flow", required=True, help="folder of the field")
    parser.add_argument("--data", required=True, help="responses of the policy, from `rlfr sample`")
    parser.add_argument("--n", type=int, default=100, help="number of prompts (default: 100)")
    options = parser.parse_args()
    for timestep in (0.8, 0.5):
        agreement(options, timestep)
    cost()


if __name__ == "__main__":
    main()
