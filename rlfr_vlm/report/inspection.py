"""The page, JSON and figures of `rlfr inspect`: a field and one or several policies, without training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rlfr_vlm.evaluate import Accuracy, Response
from rlfr_vlm.files import write_bytes, write_json, write_text
from rlfr_vlm.flow import FlowSpec
from rlfr_vlm.options import FlowOptions
from rlfr_vlm.page.figures import encoded, for_both_schemes
from rlfr_vlm.page.html import render
from rlfr_vlm.report.figures import deviation_map, quantile_figure, timestep_figure
from rlfr_vlm.report.probe import Probed
from rlfr_vlm.report.read_run import Run
from rlfr_vlm.report.rollouts import RolloutPage, describe_runs
from rlfr_vlm.report.run_report import SCRIPTS, made, quantiles_of
from rlfr_vlm.report.separation import ALL_LAYERS, auc_table, norm_table, timestep_table
from rlfr_vlm.report.token_text import Pieces
from rlfr_vlm.shaping import flow_rewards
from rlfr_vlm.trainer.records.rollout_log import flat_messages, pack

MAPPED_RESPONSES = 6


@dataclass
class Inspected:
    """One policy and its field on the chosen rows.

    Attributes:
        rows, responses, probed: one per response; several responses of a row stand together.
        timesteps: that were measured; the rewarding ones of `options` among them.
    """

    policy: str
    flow: str
    tokenizer: Any
    spec: FlowSpec
    rows: list[dict[str, Any]]
    responses: list[Response]
    probed: list[Probed]
    timesteps: list[float]
    options: FlowOptions
    max_new_tokens: int

    @property
    def rewarding(self) -> list[int]:
        """Numbers of the rewarding timesteps."""
        return [self.timesteps.index(step) for step in self.options.flow_timesteps]

    def measured(self) -> dict[str, Any]:
        """Everything but the tokens, as JSON has it."""
        layers = list(self.spec.layer_indices)
        table = auc_table(self.probed, self.responses, layers, self.timesteps)
        return {
            "policy": self.policy, "flow": self.flow, "flow_fitted_on": self.spec.policy_name,
            "layers": layers, "timesteps": self.timesteps, "rewarding_timesteps": list(self.options.flow_timesteps),
            "rows": len({row["row_number"] for row in self.rows}), "responses": len(self.responses),
            "accuracy": Accuracy.of(self.responses).to_dict(), "auc": table,
            "by_timestep": timestep_table(self.probed, layers, self.timesteps, table),
            "latent_rms": norm_table(self.probed, layers),
        }  # fmt: skip

    def groups(self) -> list[dict[str, Any]]:
        """Groups as the rollout log writes them, with pictures in place of files."""
        groups: dict[int, dict[str, Any]] = {}
        for row, response, probed in zip(self.rows, self.responses, self.probed, strict=True):
            group = groups.setdefault(row["row_number"], {
                "step": None, "row_number": row["row_number"], "prompt": flat_messages(row["prompt"]),
                "gold": row.get("answer"), "pictures": row.get("images") or [],
                "layers": list(self.spec.layer_indices), "responses": [],
            })  # fmt: skip
            group["responses"].append(self._response(response, probed))
        return list(groups.values())

    def _response(self, response: Response, probed: Probed) -> dict[str, Any]:
        layers = probed.layers_at(self.rewarding)
        mask = probed.mask & (response.score is not None)  # as in training, an undecided response gets none
        rewards = flow_rewards(layers.mean(dim=0)[None], mask[None], **self.options.shaping())[0]
        ended = len(response.ids) < self.max_new_tokens or response.ids[-1] == self.tokenizer.eos_token_id
        return {
            "token_ids": response.ids, "text": response.text,
            "finish": "stop" if ended else "length",
            "rewards": {"accuracy": response.score}, "kept": True, "advantage": None,
            "entropy": pack(probed.entropies), "flow_reward": pack(rewards),
            "deviations": [pack(layer) for layer in layers],
        }  # fmt: skip


def rollout_page(inspected: Sequence[Inspected]) -> tuple[RolloutPage, list[dict[str, Any]]]:
    """The browser's data, and what its script must know of each policy."""
    page = RolloutPage()
    runs = [Run(Path(one.policy), vars(one.options), {}, [], []) for one in inspected]
    for number, (one, run) in enumerate(zip(inspected, runs, strict=True)):
        page.add_run(number, run, one.groups(), Pieces(one.tokenizer))
    return page, describe_runs(runs, page)


def write_html(inspected: Sequence[Inspected], out: Path) -> Path:
    """The page."""
    page, runs = rollout_page(inspected)
    measured = [one.measured() for one in inspected]
    rows = page.deviations_by_class()
    flows = ", ".join(dict.fromkeys(one.flow for one in inspected))
    text = render(
        "inspect.html", {"charts": [], "runs": runs, **page.data()}, scripts=SCRIPTS,
        title=f"{' and '.join(run['name'] for run in runs)} under {flows}",
        sections=[("summary", "Summary"), ("timesteps", "Layers and timesteps"), ("rollouts", "Responses"),
                  ("tokens", "Tokens"), ("compare", "Compare"), ("classes", "Deviation by class")],
        measured=measured,
        plots=[for_both_schemes(partial(timestep_figure, own)) for own in measured],
        all_layers=ALL_LAYERS, what="Responses", shown=f"All {len(page.groups)} prompts.", steps=False, has_flow=True,
        quantiles=quantiles_of(rows), made=made(),
    )  # fmt: skip
    write_text(out / "inspect.html", text)
    return out / "inspect.html"


def write_measured(inspected: Sequence[Inspected], out: Path) -> Path:
    """The numbers, with every token's, as JSON."""
    found = []
    for one in inspected:
        pieces = Pieces(one.tokenizer)
        tokens = [
            {
                "row_number": row["row_number"], "gold": row.get("answer"), "score": response.score,
                "text": response.text, "tokens": pieces.of(response.ids), "has_deviation": probed.mask.tolist(),
                "deviations": probed.layers_at(one.rewarding).tolist(), "entropies": probed.entropies.tolist(),
            }
            for row, response, probed in zip(one.rows, one.responses, one.probed, strict=True)
        ]  # fmt: skip
        found.append(one.measured() | {"tokens": tokens})
    write_json(out / "inspect.json", _without_nan(found))
    return out / "inspect.json"


def write_figures(inspected: Sequence[Inspected], out: Path) -> Path:
    """AUC by timestep, deviations by class and deviation maps of some responses, as PNG files in `figures`."""
    folder = out / "figures"
    for number, one in enumerate(inspected):
        end = f"_{number + 1}" if len(inspected) > 1 else ""
        write_bytes(folder / f"auc_by_timestep{end}.png", encoded(timestep_figure(one.measured())))
        page, _ = rollout_page([one])
        write_bytes(folder / f"deviation_by_class{end}.png", encoded(quantile_figure(page.deviations_by_class())))
        pieces = Pieces(one.tokenizer)
        maps = [(pieces.of(response.ids), probed.layers_at(one.rewarding).tolist(), response.score)
                for response, probed in zip(one.responses, one.probed, strict=True)][:MAPPED_RESPONSES]  # fmt: skip
        write_bytes(folder / f"deviation_maps{end}.png", encoded(deviation_map(maps, list(one.spec.layer_indices))))
    return folder


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
