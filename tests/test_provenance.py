"""Versions, commits and the hashes by which caches and runs are found."""

import subprocess
from types import SimpleNamespace

import pytest

from rlfr_vlm.flow.spec import policy_config_hash
from rlfr_vlm.provenance import git_commit, installed_version, package_versions, short_hash
from rlfr_vlm.quickstart.warm_start import WarmStartRecipe


def test_versions_of_missing_packages_are_left_out():
    assert installed_version("no-such-package") is None
    versions = package_versions(["trl", "no-such-package", "torch"])
    assert list(versions) == ["trl", "torch"] and versions["trl"] == installed_version("trl")


def test_short_hash_ignores_the_order_of_keys_unless_told_to_keep_it():
    # printf '{"a": 1, "b": 2}' | sha256sum
    assert short_hash({"b": 2, "a": 1}) == short_hash({"a": 1, "b": 2}) == "d8497d9d82770a70"
    assert short_hash({"b": 2, "a": 1}, sort_keys=False) != short_hash({"a": 1, "b": 2}, sort_keys=False)
    assert short_hash({"a": 1, "b": 2}, 4, sort_keys=False) == "d849"


def test_hashes_of_caches_and_fields_stay_as_they_were():
    """Values of earlier versions: with others, cached policies and fitted fields would not be found any more."""
    assert WarmStartRecipe().digest == "1f527c6abf82"
    config = SimpleNamespace(model_type="m", hidden_size=8, num_hidden_layers=2)
    assert policy_config_hash(config) == "9b328c4d391ef638"


@pytest.fixture
def repository(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "tracked.py").write_text("a = 1\n")
    git("add", "tracked.py")
    git("commit", "-m", "first")
    (tmp_path / "untracked.py").write_text("")
    return tmp_path


def test_commit_of_a_tracked_file(repository):
    commit = git_commit(repository / "tracked.py")
    assert len(commit.commit) == 40 and not commit.changed
    (repository / "tracked.py").write_text("a = 2\n")
    assert git_commit(repository / "tracked.py").changed


def test_no_commit_for_a_file_that_the_repository_does_not_track(repository, tmp_path_factory):
    assert git_commit(repository / "untracked.py") is None
    assert git_commit(tmp_path_factory.mktemp("elsewhere") / "file.py") is None
