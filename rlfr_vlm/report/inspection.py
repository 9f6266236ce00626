"""Write the page, JSON and figures of `rlfr inspect`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.data.rows import Row
from rlfr_vlm.data.videos import pictures_of
from rlfr_vlm.deviation import ResponseDeviation
from rlfr_vlm.evaluate import Accuracy, Response
from rlfr_vlm.files import JsonObject, write_bytes, write_json, write_text
from rlfr_vlm.flow import FlowSpec
from rlfr_vlm.flow_options import FlowOptions
from rlfr_vlm.page.figures import encoded, for_both_schemes
from rlfr_vlm.page.html import render
from rlfr_vlm.report.figures import deviation_map, quantile_figure, timestep_figure
from rlfr_vlm.report.read_run import Run
from rlfr_vlm.report.rollouts import RolloutPage, describe_runs
from rlfr_vlm.report.run_report import SCRIPTS, page_footer, quantile_plot
from rlfr_vlm.report.separation import ALL_LAYERS, auc_table, norm_table, timestep_table
from rlfr_vlm.report.token_text import TokenDecoder
from rlfr_vlm.report.yardsticks import yardsticks
from rlfr_vlm.retest import row_correlation, sign_agreement
from rlfr_vlm.shaping import flow_rewards
from rlfr_vlm.trainer.records.rollout_log import flat_messages, pack

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

MAPPED_RESPONSES = 6  # responses in the figure of deviation maps


@dataclass
class Inspection:
    """Responses of one policy and their deviations from its field.

    Attributes:
        policy, flow: folder or hub id of the policy, and folder of the field.
        rows, responses, deviations: one per response; responses to the same prompt are adjacent.
        prompts: number of the prompt of each response.
        again: deviations at the rewarding timesteps under other noise.
        timesteps: measured timesteps, including the rewarding ones of `options`.
    """

    policy: str
    flow: str
    tokenizer: "PreTrainedTokenizerBase"
    spec: FlowSpec
    rows: list[Row]
    responses: list[Response]
    prompts: list[int]
    deviations: list[ResponseDeviation]
    again: list[ResponseDeviation]
    timesteps: list[float]
    options: FlowOptions
    max_new_tokens: int

    @property
    def rewarding(self) -> list[int]:
        """Indices of the rewarding timesteps."""
        return [self.timesteps.index(step) for step in self.options.flow_timesteps]

    def summary(self) -> JsonObject:
        """Accuracy, AUC and norms as a JSON object, without the tokens."""
        layers = list(self.spec.layer_indices)
        table = auc_table(self.deviations, self.responses, layers, self.timesteps, self.prompts)
        return {
            "policy": self.policy,
            "flow": self.flow,
            "flow_fitted_on": self.spec.policy_name,
            "layers": layers,
            "timesteps": self.timesteps,
            "rewarding_timesteps": list(self.options.flow_timesteps),
            "rows": len(set(self.prompts)),
            "responses": len(self.responses),
            "accuracy": Accuracy.of(self.responses).to_dict(),
            "auc": table,
            "by_timestep": timestep_table(self.deviations, self.timesteps, table),
            "yardsticks": yardsticks(self.deviations, self.responses, self.prompts, layers),
            "retest": self.retest(),
            "latent_rms": norm_table(self.deviations, layers),
        }

    def retest(self) -> JsonObject:
        """Share of token rewards that keep their sign under other noise, and correlation of deviations; or None."""
        agreements, correlations = [], []
        for deviation, other in zip(self.deviations, self.again, strict=True):
            mask = deviation.mask[None]
            first, second = deviation.select(self.rewarding).scores[None], other.scores[None]
            rewards = [flow_rewards(values, mask, **self.options.shaping()) for values in (first, second)]
            agreements.append(sign_agreement(*rewards))
            correlations.append(row_correlation(first, second, mask))
        return {"sign_agreement": _mean(agreements), "correlation": _mean(correlations)}

    def groups(self) -> list[JsonObject]:
        """Groups in the format of the rollout log, with `pictures` (images in memory) instead of image files."""
        groups: dict[int, JsonObject] = {}
        measured = zip(self.prompts, self.rows, self.responses, self.deviations, strict=True)
        for prompt, row, response, deviation in measured:
            group = groups.setdefault(
                prompt,
                {
                    "step": None,
                    "row_number": row["row_number"],
                    "prompt": flat_messages(row["prompt"]),
                    "gold": row.get("answer"),
                    "pictures": pictures_of(row),
                    "layers": list(self.spec.layer_indices),
                    "responses": [],
                },
            )
            group["responses"].append(self._response(response, deviation))
        return list(groups.values())

    def _response(self, response: Response, deviation: ResponseDeviation) -> JsonObject:
        layers = deviation.by_layer(self.rewarding)
        mask = deviation.mask & (response.score is not None)  # as in training: no flow reward if undecided
        rewards = flow_rewards(layers.mean(dim=0)[None], mask[None], **self.options.shaping())[0]
        ended = len(response.ids) < self.max_new_tokens or response.ids[-1] == self.tokenizer.eos_token_id
        return {
            "token_ids": response.ids,
            "text": response.text,
            "finish": "stop" if ended else "length",
            "rewards": {"accuracy": response.score},
            "kept": True,
            "advantage": None,
            "entropy": pack(_entropies(deviation)),
            "flow_reward": pack(rewards),
            "deviations": [pack(layer) for layer in layers],
            **self._dependency(deviation),
        }

    def _dependency(self, deviation: ResponseDeviation) -> JsonObject:
        """Visual dependency of the tokens, if it was measured."""
        dependency = None if deviation.measures is None else deviation.measures.visual_dependency
        return {} if dependency is None else {"visual_dependency": pack(dependency)}

    def tokens(self) -> list[JsonObject]:
        """Per response: token texts, deviations per layer at the rewarding timesteps, and entropies."""
        decoder = TokenDecoder(self.tokenizer)
        return [
            {
                "row_number": row["row_number"],
                "gold": row.get("answer"),
                "score": response.score,
                "text": response.text,
                "tokens": decoder.texts(response.ids),
                "has_deviation": deviation.mask.tolist(),
                "deviations": deviation.by_layer(self.rewarding).tolist(),
                "entropies": _entropies(deviation).tolist(),
            }
            for row, response, deviation in zip(self.rows, self.responses, self.deviations, strict=True)
        ]


def _entropies(deviation: ResponseDeviation) -> "Tensor":
    if deviation.entropies is None:
        raise ValueError("an inspection needs entropies; measure the deviations with with_measures=True")
    return deviation.entropies


def _mean(values: Sequence[float]) -> float | None:
    """Mean of the values that are not NaN; None without any."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None


def rollout_page(inspections: Sequence[Inspection]) -> tuple[RolloutPage, list[JsonObject]]:
    """Data of the response browser, and the description of each policy for the page's script."""
    page = RolloutPage()
    runs = [Run(Path(inspection.policy), vars(inspection.options), {}, [], []) for inspection in inspections]
    for index, (inspection, run) in enumerate(zip(inspections, runs, strict=True)):
        page.add_run(index, run, inspection.groups(), TokenDecoder(inspection.tokenizer))
    return page, describe_runs(runs, page)


def write_html(inspections: Sequence[Inspection], out: Path) -> Path:
    """Write `inspect.html`; return its path."""
    page, runs = rollout_page(inspections)
    summaries = [inspection.summary() for inspection in inspections]
    rows = page.deviations_by_class()
    flows = ", ".join(dict.fromkeys(inspection.flow for inspection in inspections))
    text = render(
        "inspect.html",
        {"charts": [], "runs": runs, **page.data()},
        scripts=SCRIPTS,
        title=f"{' and '.join(run['name'] for run in runs)} under {flows}",
        sections=[
            ("summary", "Summary"),
            ("timesteps", "Layers and timesteps"),
            ("rollouts", "Responses"),
            ("tokens", "Tokens"),
            ("compare", "Compare"),
            ("classes", "Deviation by class"),
        ],
        summaries=summaries,
        plots=[for_both_schemes(partial(timestep_figure, summary)) for summary in summaries],
        all_layers=ALL_LAYERS,
        what="Responses",
        shown=f"All {len(page.groups)} prompts.",
        steps=False,
        has_flow=True,
        quantiles=quantile_plot(rows),
        made=page_footer(),
    )
    write_text(out / "inspect.html", text)
    return out / "inspect.html"


def write_measurements(inspections: Sequence[Inspection], out: Path) -> Path:
    """Write `inspect.json` with the summary and the tokens of each policy; return its path."""
    values = [inspection.summary() | {"tokens": inspection.tokens()} for inspection in inspections]
    write_json(out / "inspect.json", _without_nan(values))
    return out / "inspect.json"


def write_figures(inspections: Sequence[Inspection], out: Path) -> Path:
    """Write PNG files into `figures`: AUC by timestep, deviation by class, and deviation maps of some responses."""
    folder = out / "figures"
    for index, inspection in enumerate(inspections):
        suffix = f"_{index + 1}" if len(inspections) > 1 else ""
        write_bytes(folder / f"auc_by_timestep{suffix}.png", encoded(timestep_figure(inspection.summary())))
        page, _ = rollout_page([inspection])
        write_bytes(folder / f"deviation_by_class{suffix}.png", encoded(quantile_figure(page.deviations_by_class())))
        decoder = TokenDecoder(inspection.tokenizer)
        maps = [
            (decoder.texts(response.ids), deviation.by_layer(inspection.rewarding).tolist(), response.score)
            for response, deviation in zip(inspection.responses, inspection.deviations, strict=True)
        ][:MAPPED_RESPONSES]
        map_figure = deviation_map(maps, list(inspection.spec.layer_indices))
        write_bytes(folder / f"deviation_maps{suffix}.png", encoded(map_figure))
    return folder


def _without_nan(value: object) -> object:
    """The JSON value with None in place of NaN and infinity."""
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
