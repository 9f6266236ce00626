"""The charts of a report: which metrics each shows, with titles and units, and what splits a chart into several."""

from dataclasses import dataclass, replace

from rlfr_vlm.report.read_run import Run, short_reward_name


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        metrics: (name, label) pairs.
        prefix, suffix: if set, all metrics whose names begin and end with them, instead of `metrics`.
        per_experiment: draw one chart for each experiment, because it has many lines.
        per_rollout: the metric differs between updates with and without a rollout; average it over the updates from
            one rollout to the next.
    """

    id: str
    title: str
    unit: str
    metrics: tuple[tuple[str, str], ...] = ()
    prefix: str = ""
    suffix: str = ""
    note: str = ""
    per_experiment: bool = False
    per_rollout: bool = False


ACCURACY, HELD_OUT = "accuracy", "held-out"  # charts that are split by what the outcome of a run measures
CHARTS = (
    Chart(ACCURACY, "Training accuracy", "share right", (("outcome/accuracy", "right among decided"),
                                                         ("outcome/undecided", "undecided"))),
    Chart("rewards", "Reward parts", "mean reward", prefix="rewards/", suffix="/mean"),
    Chart(HELD_OUT, "Held-out accuracy", "share right",
          (("eval_greedy", "greedy"), ("eval_sampled", "sampled"))),
    Chart("benchmarks", "Benchmarks", "share right", prefix="benchmark/",
          note="Checkpoints, measured by rlfr-eval, with the ends of 95 % intervals and the share undecided."),
    Chart("sources", "Outcome by source of the mixture", "mean outcome", prefix="source/", suffix="/outcome"),
    Chart("length", "Response length", "tokens", (("completions/mean_length", "mean"),
                                                  ("completions/max_length", "longest"))),
    Chart("truncated", "Truncated and repetitive responses", "share",
          (("completions/clipped_ratio", "truncated"), ("completions/repetitive", "repetitive"))),
    Chart("entropy", "Entropy", "nats per token", (("entropy", "entropy"),)),
    Chart("deviation", "Deviation from the flow", "mean over tokens",
          (("flow/deviation_correct", "right responses"), ("flow/deviation_wrong", "wrong responses"))),
    Chart("auc", "AUC of deviation", "AUC, wrong above right",
          (("flow/auc_within_group_mean", "same prompt, mean over tokens"),
           ("flow/auc_within_group_max", "same prompt, largest token"),
           ("flow/auc_wrong_above_correct_mean", "all prompts, mean over tokens"),
           ("flow/auc_wrong_above_correct_max", "all prompts, largest token")),
          note="0.5 is chance. Training can use what separates responses to the same prompt; all prompts together "
          "include how hard prompts are."),
    Chart("gate", "Gate of the flow reward", "share, AUC",
          (("flow/coef_share", "share of the coefficient that counts"), ("flow/gate_auc", "AUC over the window"),
           ("flow/gate_low", "lower end of its interval"))),
    Chart("retest", "Flow reward under other noise", "share, correlation",
          (("flow/sign_agreement", "token rewards that keep their sign"),
           ("flow/retest_correlation", "correlation within a response"))),
    Chart("visual", "Visual dependency", "nats per token",
          (("visual/dependency_correct", "right responses"), ("visual/dependency_wrong", "wrong responses"))),
    Chart("flow-loss", "Loss of the flow update", "loss", (("flow/loss", "loss"),)),
    Chart("flow-share", "Tokens with a flow reward", "share of tokens",
          (("flow/share_rewarded", "rewarded"), ("flow/share_penalised", "penalised"))),
    Chart("gap", "Log-prob gap between rollout engine and trainer", "nats per token",
          (("rollout/logp_gap_mean", "mean"), ("rollout/logp_gap_max", "largest"))),
    Chart("effective", "Effective sample size of the rollouts", "share",
          (("rollout/effective_share", "after importance weighting"),)),
    Chart("flat", "Groups without a learning signal", "share", (("frac_reward_zero_std", "all rewards equal"),)),
    Chart("curriculum", "Curriculum", "share of prompts, success rate",
          (("curriculum/seen", "tried"), ("curriculum/in_band", "of these, in the band"),
           ("curriculum/rate_of_drawn", "rate of the drawn before the draw"))),
    Chart("gradient", "Gradient norm", "norm", (("grad_norm", "policy"),)),
    Chart("speed", "Time", "seconds per update", (("step_time", "whole update"),), per_rollout=True),
    Chart("time", "Time per part", "seconds per update", prefix="seconds/", per_experiment=True, per_rollout=True),
    Chart("memory", "Peak memory", "GB", prefix="memory/", suffix="_gb", per_experiment=True),
)  # fmt: skip


def quantity_of(chart: Chart, run: Run) -> str:
    """Name of what a chart shows of a run. Runs of which it shows different quantities get charts of their own.

    Held-out answers are graded also where the outcome is the reference probability.
    """
    if chart.id == ACCURACY:
        return run.outcome
    if chart.id == HELD_OUT:
        return ACCURACY if run.outcome == "reference_probability" else run.outcome
    return ""


def chart_of_quantity(chart: Chart, quantity: str) -> Chart:
    """Return the chart of a quantity that `quantity_of` returned. An outcome that is no accuracy has its mean, too."""
    if quantity in ("", ACCURACY):
        return chart
    name = short_reward_name(quantity)
    slug = "".join(character if character.isalnum() else "-" for character in quantity)
    if chart.id == HELD_OUT:
        title = f"Held-out share with {name} above flow_accept_threshold"
        return replace(chart, id=f"{chart.id}-{slug}", title=title, unit="share")
    metrics = (
        ("outcome/mean", "mean of decided"),
        ("outcome/accuracy", "share above flow_accept_threshold"),
        ("outcome/undecided", "undecided"),
    )
    return Chart(f"outcome-{slug}", f"Outcome: {name}", "mean reward, shares", metrics)
