"""Masked blocks get the attention of transformers without copies of a key for the heads that share it."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from transformers.integrations import sdpa_attention
from transformers.models.qwen2.modeling_qwen2 import eager_attention_forward

from rlfr_vlm.models.shared_prefix.attention import _without_repeats

BLOCKS, WIDTH, KEYS, SIZE = 3, 4, 9, 8
BASES = {"sdpa": sdpa_attention.sdpa_attention_forward, "eager": eager_attention_forward}


def states(heads, key_heads):
    generator = torch.Generator().manual_seed(0)
    shapes = ((BLOCKS, heads, WIDTH, SIZE), (BLOCKS, key_heads, KEYS, SIZE), (BLOCKS, key_heads, KEYS, SIZE))
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (6, 2), (4, 1)])
def test_the_same_attention_and_gradients(base, heads, key_heads):
    query, key, value = states(heads, key_heads)
    module = SimpleNamespace(num_key_value_groups=heads // key_heads, is_causal=True, training=True)
    allowed = torch.ones(WIDTH, KEYS, dtype=torch.bool).tril(KEYS - WIDTH)[None, None]
    mask = allowed if base is BASES["sdpa"] else torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)
    scaling = {"scaling": SIZE**-0.5}
    expected = base(module, query, key, value, mask, is_causal=False, **scaling)[0]
    found = _without_repeats(base, module, query, key, value, mask, **scaling)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), (query, key, value)),
        torch.autograd.grad((expected * weights).sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_no_key_is_copied():
    query, key, value = states(4, 2)
    given = {}

    def base(module, query, key, value, mask, **_):
        assert module.num_key_value_groups == 1 and module.layer_idx == 5
        given.update(key=key, value=value)
        return query.transpose(1, 2), None

    module = SimpleNamespace(num_key_value_groups=2, layer_idx=5)
    _without_repeats(base, module, query, key, value, torch.ones(1, 1, WIDTH, KEYS, dtype=torch.bool))
    for name, states_ in (("key", key), ("value", value)):
        assert given[name].shape == (BLOCKS * 2, 2, KEYS, SIZE)
        assert given[name].untyped_storage().data_ptr() == states_.untyped_storage().data_ptr()


def test_transformers_repeats_keys_where_there_is_a_mask():
    """Read in transformers 5.17: when this fails, `_without_repeats` may have become unnecessary."""
    assert "repeat_kv(key, module.num_key_value_groups)" in inspect.getsource(sdpa_attention.sdpa_attention_forward)
    key = torch.zeros(1, 1, 1, 8)
    assert not sdpa_attention.use_gqa_in_sdpa(torch.ones(1, 1, 1, 1), key, key)
