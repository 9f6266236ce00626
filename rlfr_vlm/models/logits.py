"""Logits of a policy from its last hidden states, as its own forward pass computes them."""

from torch import Tensor, nn

from rlfr_vlm.models.towers import unwrap


def response_logits(policy: nn.Module, hidden: Tensor) -> Tensor:
    """Return float32 logits (..., V) of last hidden states (..., D): the LM head, its ban, scaling and soft cap.

    Args:
        policy: with a whole (not sharded) LM head, wrapped or not.
        hidden: output of the language tower.
    """
    inner = unwrap(policy)
    config = inner.config.get_text_config()  # type: ignore[operator, union-attr]
    head = inner.get_output_embeddings()  # type: ignore[operator]
    logits: Tensor = head(hidden.to(head.weight.dtype)).float()
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (factor := getattr(config, "logit_scale", None)) is not None:
        logits = logits * factor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = (logits / cap).tanh() * cap
    return logits
