"""Features of images are those of the tower, and each image of a rollout runs through it once."""

import pytest
import torch

from rlfr_vlm.models.image_features import ImageFeatureCache, ImageFeatures
from rlfr_vlm.models.vision import freeze_vision_tower
from tests.models.small_families import VISION, build_policy, build_processor

GB = 10**9


def policy_of(name):
    policy = build_policy(VISION[name], build_processor(VISION[name]))
    freeze_vision_tower(policy)
    return policy


def patches(policy, *grids, seed=0):
    """Random patches of images with these grids."""
    vision = policy.config.vision_config
    channels = getattr(vision, "in_channels", None) or vision.in_chans
    width = channels * vision.temporal_patch_size * vision.patch_size**2
    sizes = [t * h * w for t, h, w in grids]
    return torch.randn(sum(sizes), width, generator=torch.Generator().manual_seed(seed)), torch.tensor(grids)


def counted(policy):
    """Patches of each call of the tower."""
    calls, original = [], policy.model.visual.forward

    def visual(pixels, *args, **kwargs):
        calls.append(len(pixels))
        return original(pixels, *args, **kwargs)

    policy.model.visual.forward = visual
    return calls


@pytest.mark.parametrize("name", ["Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL", "GLM-4.6V"])
@pytest.mark.parametrize("on_host", [False, True])
def test_known_images_have_the_features_of_the_tower(name, on_host):
    policy = policy_of(name)
    pixels, grids = patches(policy, (1, 2, 4), (1, 4, 4), (1, 2, 2))
    expected = policy.base_model.get_image_features(pixels, grids, return_dict=True)
    cache = ImageFeatureCache(GB, on_host)
    assert cache.suits(policy)
    calls = counted(policy)
    with cache.answering(policy):
        first = policy.base_model.get_image_features(pixels[:24], grids[:2])  # images of 8 and 16 patches
        again = policy.base_model.get_image_features(
            torch.cat([pixels[8:24], pixels, pixels[8:24]]), torch.cat([grids[1:2], grids, grids[1:2]])
        )
    assert calls == [24, 4]
    order = [1, 0, 1, 2, 1]
    for found, image in zip(again.pooler_output, order, strict=True):
        torch.testing.assert_close(found, expected.pooler_output[image], atol=1e-5, rtol=1e-5)
    assert len(first.pooler_output) == 2 and not again.pooler_output[0].requires_grad
    if name == "Qwen3-VL":
        sizes = [len(tokens) for tokens in expected.pooler_output]
        for block, own in zip(expected.deepstack_features, again.deepstack_features, strict=True):
            parts = block.split(sizes)
            torch.testing.assert_close(own, torch.cat([parts[image] for image in order]), atol=1e-5, rtol=1e-5)
    assert cache.take_metrics() == {"images/tower_saved": pytest.approx(1 - 3 / 7)}
    assert cache.take_metrics() == {}


def test_the_limit_of_memory_and_what_is_forgotten():
    policy = policy_of("Qwen2.5-VL")
    pixels, grids = patches(policy, (1, 2, 2), (1, 4, 4))  # 1 and 4 tokens of 32 numbers
    cache = ImageFeatureCache(4 * 32 * 4, on_host=False)
    calls = counted(policy)
    with cache.answering(policy):
        for _ in range(2):
            policy.base_model.get_image_features(pixels, grids)
        assert calls == [20, 16]  # the second image came when 128 of 512 bytes were taken
        cache.clear()
        policy.base_model.get_image_features(pixels[4:], grids[1:])
        policy.base_model.get_image_features(pixels[4:], grids[1:])
        assert calls == [20, 16, 16]
    policy.base_model.get_image_features(pixels[4:], grids[1:])
    assert calls == [20, 16, 16, 16] and "get_image_features" not in vars(policy.base_model)


def test_an_image_in_another_type_is_another_image():
    policy = policy_of("Qwen2.5-VL")
    pixels, grids = patches(policy, (1, 2, 2))
    cache = ImageFeatureCache(GB, on_host=False)
    calls = counted(policy)
    with cache.answering(policy):
        policy.base_model.get_image_features(pixels, grids)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            policy.base_model.get_image_features(pixels, grids)
        policy.base_model.get_image_features(pixels + 1e-3, grids)
        policy.base_model.get_image_features(pixels.view(1, -1, pixels.shape[1])[0], grids)
    assert calls == [4, 4, 4]


def test_the_limit_holds_for_the_memory_that_is_held():
    """Features of an image are a view of those of its batch, which would stay in memory as a whole."""
    policy = policy_of("Qwen2.5-VL")
    cache = ImageFeatureCache(2 * 32 * 4, on_host=False)  # two images of one token of 32 numbers
    with cache.answering(policy):
        policy.base_model.get_image_features(*patches(policy, *[(1, 2, 2)] * 100))
        held = [tensor.untyped_storage() for kept in cache._known.values() for tensor in kept.pooler_output]
        assert sum({storage.data_ptr(): storage.nbytes() for storage in held}.values()) == cache.limit


def test_a_tower_that_is_trained_meanwhile_is_asked():
    policy = policy_of("Qwen2.5-VL")
    pixels, grids = patches(policy, (1, 2, 2))
    cache = ImageFeatureCache(GB, on_host=False)
    calls = counted(policy)
    with cache.answering(policy):
        policy.base_model.get_image_features(pixels, grids)
        policy.model.visual.requires_grad_(True)
        found = policy.base_model.get_image_features(pixels, grids)
    assert calls == [4, 4] and found.pooler_output[0].requires_grad


def test_adapters_of_the_tower_are_left_to_it(make_policy):
    from peft import LoraConfig, get_peft_model

    policy = make_policy()
    freeze_vision_tower(policy)
    assert ImageFeatureCache.suits(policy)
    adapted = get_peft_model(policy, LoraConfig(r=4, target_modules=r".*visual.*qkv"))
    freeze_vision_tower(adapted)
    assert not ImageFeatureCache.suits(adapted)


def test_images_of_an_evaluation_are_not_counted(make_trainer, make_policy, digits):
    changes = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": digits.select(range(4))}
    trainer = make_trainer(
        make_policy(), max_steps=1, steps_per_generation=1, per_device_train_batch_size=8, **changes
    )
    trainer.train()
    assert trainer.image_features.take_metrics() == {} and trainer.image_features._bytes == 0


def test_trained_towers_and_other_families_are_left_alone(make_policy, make_text_policy):
    assert not ImageFeatureCache.suits(make_policy())  # not frozen
    assert not ImageFeatureCache.suits(make_text_policy())
    assert not ImageFeatureCache.suits(policy_of("Gemma 3"))


def test_features_are_split_and_counted():
    features = ImageFeatures([torch.zeros(2, 3), torch.ones(1, 3)], [torch.arange(9.0).view(3, 3)])
    first, second = features.split()
    assert features.num_bytes == (6 + 3 + 9) * 4
    assert first.deepstack_features[0].tolist() == [[0, 1, 2], [3, 4, 5]] and second.pooler_output[0].sum() == 3


def settings(cache):
    return {"image_feature_cache_gb": cache, "learning_rate": 0.3, "optim": "sgd", "max_steps": 4, "num_iterations": 2}


@pytest.mark.parametrize("share", ["true", "false"])
def test_a_rollout_runs_each_image_once_in_all_its_passes(make_trainer, make_policy, share):
    trainer = make_trainer(make_policy(), share_prefix=share, **settings(1.0))
    calls = counted(trainer.model)
    trainer.train()
    assert sum(calls) == 2 * 8  # two prompts, whose scans have 2 x 4 patches; two updates, twice each
    log = next(log for log in trainer.state.log_history if "images/tower_saved" in log)
    # asked for in generation, old log-probs and the first update: 2 + 2 + 1 times, or for each of 8 + 8 + 4 rows
    assert log["images/tower_saved"] == pytest.approx(1 - 2 / {"true": 5, "false": 20}[share])
    plain = make_trainer(make_policy(), share_prefix=share, **settings(0.0))
    assert plain.image_features is None
    plain.train()
    for ours, theirs in zip(trainer.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
