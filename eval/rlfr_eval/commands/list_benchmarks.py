"""`rlfr-eval list`: benchmarks, suites and prompt presets."""

import argparse
import json

from rlfr_eval.commands.arguments import eval_parser

SUMMARY = "list benchmarks, suites and prompt presets"


def parser() -> argparse.ArgumentParser:
    given = eval_parser("list", SUMMARY)
    given.add_argument("--vlm", action="store_true", help="multimodal benchmarks, what is known of them, and presets")
    given.add_argument("--sets", action="store_true", help="how every class of VLMEvalKit's data sets can be scored")
    given.add_argument("--json", action="store_true", help="everything, as JSON")
    return given


def run(options: argparse.Namespace) -> int:
    """Print benchmarks, suites and presets. Returns the exit code."""
    import dataclasses

    from rlfr_eval.benchmarks.text import shipped, suites
    from rlfr_eval.benchmarks.text_presets import PRESETS
    from rlfr_eval.report.table import aligned

    if options.sets:
        return _list_sets(options.json)
    if options.vlm:
        return _list_vlm(options.json)
    benchmarks = shipped()
    if options.json:
        print(
            json.dumps(
                {
                    "benchmarks": {name: dataclasses.asdict(one) for name, one in benchmarks.items()},
                    "suites": suites(),
                    "prompts": {name: dataclasses.asdict(one) | {"hash": one.digest} for name, one in PRESETS.items()},
                }
            )
        )
        return 0
    rows = [
        (
            name,
            one.title,
            str(one.n or "?"),
            one.prompt,
            f"T {one.sampling.temperature:g} x {one.sampling.samples}",
            one.judge,
            one.licence,
        )
        for name, one in benchmarks.items()
    ]
    print(aligned([("benchmark", "title", "n", "prompt", "sampling", "judge", "licence"), *rows]))
    print("\nsuites")
    for name, members in suites().items():
        print(f"  {name:<12} {', '.join(members)}")
    print("\ntasks of reasoning-gym are benchmarks, too: --suite 'reasoning_gym:chain_sum?size=200'")
    print("\nwhat to know")
    for name, benchmark in benchmarks.items():
        if benchmark.caution:
            print(f"  {name}: {benchmark.caution}")
    print("\nprompt presets")
    for name, one in PRESETS.items():
        print(f"  {name:<12} v{one.version} {one.digest}  {one.about}")
    return 0


def _list_vlm(as_json: bool) -> int:
    import dataclasses

    from rlfr_eval.benchmarks.vlm import GROUPINGS, shipped_vlm
    from rlfr_eval.benchmarks.vlm_presets import PRESETS
    from rlfr_eval.report.table import aligned

    benchmarks = shipped_vlm()
    if as_json:
        print(
            json.dumps(
                {
                    "benchmarks": {name: dataclasses.asdict(one) for name, one in benchmarks.items()},
                    "presets": {name: dataclasses.asdict(one) for name, one in PRESETS.items()},
                }
            )
        )
        return 0
    rows = [
        (name, one.title, str(one.n or "?"), one.grouping or "rows", one.judge_calls, one.licence)
        for name, one in benchmarks.items()
    ]
    print(aligned([("benchmark", "title", "n", "score over", "judge calls per answer", "licence"), *rows]))
    print("\nscore over")
    for name, note in GROUPINGS.items():
        print(f"  {name}: {note}")
    print("\nwhat to know")
    for name, one in benchmarks.items():
        for quirk in one.quirks:
            print(f"  {name}: {quirk}")
    print("\npresets")
    for name, preset in PRESETS.items():
        print(f"  {name:<9} v{preset.version}  {preset.about}")
    return 0


def _list_sets(as_json: bool) -> int:
    from rlfr_eval.benchmarks.vlm import surveyed_sets
    from rlfr_eval.report.table import aligned

    survey = surveyed_sets()
    if as_json:
        print(json.dumps(survey))
        return 0
    rows = [
        (
            cls,
            f"{one['names'][0]} and {len(one['names']) - 1} more" if one["names"][1:] else one["names"][0],
            one["how"],
        )
        for cls, one in survey["classes"].items()
    ]
    print(aligned([("class", "sets", "scored"), *rows]))
    print("\nwhy not, and what else to know")
    for cls, one in survey["classes"].items():
        if said := one.get("why") or one.get("unjudged"):
            print(f"  {cls}: {said.splitlines()[0][:160]}")
    print(f"\nms-vlmeval {survey['ms-vlmeval']}, tried on hand-made rows; a set's own data decide when it is opened.")
    print("family: by rules, and a judge whose replies are read here; rules, judge: row by row, by VLMEvalKit's code.")
    return 0
