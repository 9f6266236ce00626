"""The flow field of RLFR: network, path and loss, token pairing, storage. Depends on torch, not on TRL."""

from rlfr_vlm.flow.field import RIGHT, WRONG, VelocityField
from rlfr_vlm.flow.noise import NOISE_SHARING, NoisePlan
from rlfr_vlm.flow.pairing import CONTEXT_MODES, ContextMode, FlowInputs, context_lead, pair_tokens
from rlfr_vlm.flow.path import (
    flow_matching_loss,
    layer_deviations,
    linear_path,
    target_velocity,
    token_flow_losses,
    velocity_deviation,
)
from rlfr_vlm.flow.spec import FlowSpec, check_context, check_fits_policy, check_same_field, resolve_layers
from rlfr_vlm.flow.statistics import STATISTICS, response_statistic
from rlfr_vlm.flow.storage import FIELD_FOLDER, build_field, load_field, save_field

__all__ = [
    "CONTEXT_MODES",
    "FIELD_FOLDER",
    "NOISE_SHARING",
    "RIGHT",
    "STATISTICS",
    "WRONG",
    "ContextMode",
    "FlowInputs",
    "FlowSpec",
    "NoisePlan",
    "VelocityField",
    "build_field",
    "check_context",
    "check_fits_policy",
    "check_same_field",
    "context_lead",
    "flow_matching_loss",
    "layer_deviations",
    "linear_path",
    "load_field",
    "pair_tokens",
    "resolve_layers",
    "response_statistic",
    "save_field",
    "target_velocity",
    "token_flow_losses",
    "velocity_deviation",
]
