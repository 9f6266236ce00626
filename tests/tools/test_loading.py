"""Tools and environments by name and import path, and the arguments that `rlfr train` makes of them."""

import pytest

from rlfr_vlm.commands.train import tool_arguments
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import ScriptArguments
from rlfr_vlm.tools import calculator, load_environment, load_tools, owns_reward
from rlfr_vlm.tools.zoom import Zoom


def test_names_and_paths(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def double(x: int) -> int:\n    return 2 * x\n\n\nclass Room:\n    def reset(self, **row): ...\n")
    tools = load_tools(["calculator", f"{own}:double"])
    assert tools[0] is calculator and tools[1](4) == 8
    assert load_environment("zoom") is Zoom
    assert load_environment(f"{own}:Room").__name__ == "Room"


def test_an_environment_that_scores_itself():
    scored = type("Scored", (), {"get_reward": lambda self: 1.0})
    assert owns_reward(scored) and owns_reward({"a": Zoom, "b": scored})
    assert not owns_reward(Zoom) and not owns_reward(None) and not owns_reward({"a": Zoom})


def test_mistakes_have_a_message():
    with pytest.raises(UserError, match=r"Unknown tool 'calculater'; choose from calculator.*Did you mean"):
        load_tools(["calculater"])
    with pytest.raises(UserError, match="Unknown environment 'zom'"):
        load_environment("zom")
    with pytest.raises(UserError, match=r"Cannot load the tool 'no\.py:f'"):
        load_tools(["no.py:f"])


def test_arguments_of_the_trainer():
    assert tool_arguments(ScriptArguments()) == {}
    options = ScriptArguments(tools=["calculator"], environment="zoom", rollout_function="math:prod")
    arguments = tool_arguments(options)
    assert arguments["tools"] == [calculator] and arguments["environment_factory"] is Zoom
    assert arguments["rollout_func"]([2, 3]) == 6
