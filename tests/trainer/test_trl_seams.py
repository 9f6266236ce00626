"""The private names of TRL that we lean on, as read in TRL 1.16.0. A failure here means: read TRL's code again."""

import importlib.metadata
import inspect

import torch
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head, create_model_from_path


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_version_read():
    assert importlib.metadata.version("trl").startswith("1.16.")


def test_signatures_of_overridden_methods():
    assert parameters(GRPOTrainer._generate) == ["self", "prompts"]
    assert parameters(GRPOTrainer._tokenize_prompts) == ["self", "prompts"]
    assert parameters(GRPOTrainer._calculate_rewards) == [
        "self", "inputs", "prompts", "completions", "completion_ids_list",
    ]  # fmt: skip
    assert parameters(GRPOTrainer._get_per_token_logps_and_entropies)[:6] == [
        "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size",
    ]  # fmt: skip
    assert parameters(GRPOTrainer._generate_and_score_completions) == ["self", "inputs"]
    assert parameters(GRPOTrainer._compute_loss) == ["self", "model", "inputs"]
    assert parameters(GRPOTrainer._save_checkpoint) == ["self", "model", "trial"]
    assert parameters(GRPOTrainer._load_optimizer_and_scheduler) == ["self", "checkpoint"]
    assert parameters(GRPOTrainer.log) == ["self", "logs", "start_time"]
    assert parameters(GRPOTrainer.get_high_entropy_mask) == ["self", "entropies", "mask", "threshold"]
    assert parameters(disable_gradient_checkpointing)[:2] == ["model", "gradient_checkpointing_kwargs"]
    assert "temperature" in parameters(add_fused_lm_head)
    assert parameters(create_model_from_path)[0] == "model_id"


def source(method: str) -> str:
    return " ".join(inspect.getsource(getattr(GRPOTrainer, method)).split())


def test_condition_under_which_trl_computes_old_log_probs():
    code = source("_generate_and_score_completions")
    assert "generate_every = self.args.steps_per_generation * self.num_iterations" in code
    assert (
        "if self.args.gradient_accumulation_steps % generate_every != 0 or ( "
        "self.use_vllm and self.vllm_importance_sampling_correction ):" in code
    )


def test_old_pass_comes_before_the_reference_pass_and_the_rewards():
    code = source("_generate_and_score_completions")
    assert code.index("old_per_token_logps, _, _ =") < code.index("ref_per_token_logps, _, _ =")
    assert code.index("ref_per_token_logps, _, _ =") < code.index("self._calculate_rewards(")


def test_loss_takes_advantages_per_token():
    assert "if advantages.dim() == 1: advantages = advantages.unsqueeze(1)" in source("_compute_loss")


def test_the_pass_calls_the_model_for_log_probs_and_reads_only_them():
    code = source("_get_per_token_logps_and_entropies")
    assert "outputs = model(**model_inputs, labels=labels, fused_lm_head=True)" in code
    assert "all_logps.append(outputs.log_probs[:, -logits_to_keep:])" in code
    assert FusedCausalLMOutput(log_probs=torch.zeros(1)).log_probs is not None


def test_what_shared_prompts_lean_on():
    code = source("_get_per_token_logps_and_entropies")
    assert "for start in range(0, input_ids.size(0), batch_size):" in code  # chunks of rows in order
    assert "labels[:, :-logits_to_keep] = -100" in code
    assert "outputs.entropy[:, -logits_to_keep:]" in code
    head = " ".join(inspect.getsource(add_fused_lm_head).split())
    assert "hidden_states = backbone_outputs.last_hidden_state labels = shift_labels" in head
    assert 'kwargs["use_cache"] = False' in head


def test_fused_head_reads_the_heads_bias_at_every_call():
    assert "weight, bias = lm_head.weight, lm_head.bias" in " ".join(inspect.getsource(add_fused_lm_head).split())


def test_rows_are_split_and_shuffled_with_their_tensors():
    from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

    batch = {"a": torch.arange(4), "flow_weight": torch.arange(4.0), "advantages": torch.arange(8.0).view(4, 2)}
    for part in split_tensor_dict(shuffle_sequence_dict(batch), 2):
        assert torch.equal(part["a"].float(), part["flow_weight"])
        assert torch.equal(part["advantages"][:, 0], 2 * part["flow_weight"])


def test_loss_reads_the_advantages_after_the_pass_that_gives_entropies():
    """The entropy bonus is put into the batch by that pass."""
    code = source("_compute_loss")
    assert code.index("self._get_per_token_logps_and_entropies(") < code.index('advantages = inputs["advantages"]')
    assert "compute_entropy=True" in code


def test_batches_are_split_and_joined_by_rows():
    """What rollout_batch.py relies on: pixels flat over images, counted by the grid, images of a row by num_images."""
    from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

    batch = {
        "pixel_values": torch.arange(6.0).view(6, 1),
        "image_grid_thw": torch.tensor([[1, 2, 2], [1, 1, 2]]),
        "num_images": [1, 1],
    }
    split = split_pixel_values_by_grid(batch)
    assert [len(pixels) for pixels in split["pixel_values"]] == [4, 2]
    again = unsplit_pixel_values_by_grid(split)
    assert torch.equal(again["pixel_values"], batch["pixel_values"])
    assert torch.equal(again["image_grid_thw"], batch["image_grid_thw"])


def test_an_undecided_row_is_left_out_of_its_groups_mean():
    code = source("_generate_and_score_completions")
    assert "unscorable_mask = torch.isnan(rewards_per_func).all(dim=1)" in code
    assert "advantages = torch.nan_to_num(advantages, nan=0.0)" in code


def test_names_that_resuming_leans_on():
    """checkpoint.py writes aside by giving TRL and transformers another folder; resume.py brings epochs in order."""
    from transformers import Trainer
    from trl.trainer.utils import RepeatSampler

    for cls in (GRPOTrainer, Trainer):
        code = inspect.getsource(cls._save_checkpoint)
        assert "self._get_output_dir(trial=trial)" in code
    assert "epochs_trained = int(self.state.global_step // num_update_steps_per_epoch)" in inspect.getsource(
        Trainer._init_training_state
    )
    assert "torch.randperm(self.num_samples, generator=self.generator)" in inspect.getsource(RepeatSampler.__iter__)
    assert "self._step = 0" in inspect.getsource(GRPOTrainer.__init__)  # a resumed run begins with a rollout


def test_names_that_rollouts_and_evaluation_lean_on():
    assert (
        "return prompt_ids, completion_ids, tool_mask, completions, logprobs, extra_fields, images, tool_images"
        in (source("_generate"))
    )
    assert "images.append(prompt_images if prompt_images else None)" in source("_tokenize_prompts")
    assert "return prompt_ids, images, multimodal_fields" in source("_tokenize_prompts")
    assert "self._buffered_inputs[self._step % self.args.steps_per_generation]" in source("_prepare_inputs")
    assert "if images is not None and self.log_multimodal:" in source("_generate_and_score_completions")


def test_names_that_lora_and_sharded_heads_lean_on():
    from trl.generation.vllm_generation import VLLMGeneration
    from trl.trainer import utils

    code = inspect.getsource(VLLMGeneration._iter_named_params)
    assert 'name.removeprefix("base_model.model.").replace(".base_layer", "")' in code
    assert "if model.prefix in name:" in code and 'if "original_module" in name:' in code
    assert "p.ds_status != ZeroParamStatus.AVAILABLE" in inspect.getsource(utils.maybe_gather_lm_head_ctx)
    assert "bias = bias.full_tensor()" in inspect.getsource(utils.add_fused_lm_head)
    assert utils._CHUNKED_LOGPROB_CHUNK_SIZE == 32768
