"""`rlfr-eval settings`: print the settings in force and the origin of each value."""

import argparse
import json

from rlfr_eval.commands.arguments import add_judge_options, eval_parser, read_judge, read_settings
from rlfr_vlm.errors import EXIT_USER_ERROR, UserError

SUMMARY = "print the settings in force and where each came from; keys are masked"


def parser() -> argparse.ArgumentParser:
    given = eval_parser("settings", SUMMARY)
    given.add_argument("--json", action="store_true", help="as JSON")
    add_judge_options(given)
    return given


def run(options: argparse.Namespace) -> int:
    """Print the settings. Returns 2 if they contradict each other."""
    settings = read_settings(options)
    code = 0
    try:
        choice = read_judge(options, settings)
        judge = "none: rules only"
        if choice is not None:
            where = (
                f"{choice.local}, served here"
                if choice.local
                else f"{choice.model or 'its only model'} at {choice.url}"
            )
            judge = f"{where}, named by {choice.named_by}"
    except UserError as error:
        judge, code = f"cannot be used: {error}", EXIT_USER_ERROR
    if options.json:
        shown = {value.name: {"value": value.display_text, "from": value.origin} for value in settings.values.values()}
        print(json.dumps({"settings": shown, "env_file": str(settings.env_file or ""), "judge": judge}))
        return code
    from rlfr_eval.report.table import aligned

    rows = [(value.name, value.display_text, value.origin) for value in settings.values.values()]
    print(aligned([("setting", "value", "from"), *rows]))
    print(f".env: {settings.env_file or 'none found'}\njudge: {judge}")
    return code
