"""The packed order of a small batch, derived by hand."""

import torch

from rlfr_vlm.models.shared_prefix.layout import packed_layout

#       prompts, left-padded | responses, right-padded; rows 0 and 2 share the prompt 1 2 3
TOKENS = torch.tensor([[0, 1, 2, 3, 10, 11], [0, 0, 4, 5, 20, 0], [0, 1, 2, 3, 30, 0]])
MASK = (TOKENS > 0).long()
PACKED = [1, 2, 3, 10, 11, 3, 30, 4, 5, 20]  # prefix 1 2, blocks 3 10 11 and 3 30; prefix 4, block 5 20


def layout():
    return packed_layout(MASK, [[0, 2], [1]], num_response=2)


def test_each_group_is_its_prefix_and_a_block_for_each_response():
    assert layout().pack(TOKENS).tolist() == [PACKED]
    first, second = layout().groups
    assert (first.start, first.prefix, first.blocks, first.middle, first.end) == (0, 2, (3, 2), 2, 7)
    assert (second.start, second.prefix, second.blocks, second.end) == (7, 1, (2,), 10)


def test_where_tokens_stand_in_a_batch_of_one_row_for_each_group():
    # prefix and block of row 0, block of row 2, which has the same columns; then the second group, in row 1
    assert layout().source_in_groups([[0, 2], [1]]).tolist() == [1, 2, 3, 4, 5, 3, 4, 8, 9, 10]


def test_unpacked_values_stand_where_the_tokens_stood():
    packed = torch.tensor([PACKED]).unsqueeze(-1)
    found = layout().unpack(packed, slice(None)).squeeze(-1)
    assert torch.equal(found * MASK, TOKENS)
    assert (found[MASK == 0] == PACKED[0]).all()  # padding gets the value of the first token
    assert torch.equal(layout().unpack(packed, slice(-2, None)).squeeze(-1) * MASK[:, -2:], TOKENS[:, -2:])


def test_means_over_tokens_of_a_row():
    packed = torch.tensor([PACKED]).unsqueeze(-1).float()
    prompts = MASK.bool() & torch.tensor([True] * 4 + [False] * 2)
    assert layout().mean(packed, prompts).squeeze(1).tolist() == [2.0, 4.5, 2.0]  # (1 + 2 + 3) / 3, (4 + 5) / 2
    assert layout().mean(packed, torch.zeros_like(prompts)).tolist() == [[0.0]] * 3


def test_short_blocks_are_filled_and_cut_again():
    group = layout().groups[0]
    blocks = torch.tensor(PACKED[group.middle : group.end])
    wide = blocks[group.pad]
    assert wide.tolist() == [3, 10, 11, 3, 30, 30]
    assert wide[group.unpad].tolist() == blocks.tolist()
    assert layout().groups[1].pad is None


def test_a_block_attends_to_its_prefix_and_to_itself_up_to_each_token():
    assert layout().groups[0].mask.long().tolist() == [[[[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]]]


def test_a_prompt_of_one_token_has_no_prefix():
    single = packed_layout(torch.ones(2, 3), [[0, 1]], num_response=2)
    assert single.groups[0].prefix == 0 and single.groups[0].blocks == (3, 3)
    assert single.index.tolist() == [[0, 1, 2], [3, 4, 5]]
