"""The process that runs VLMEvalKit. It has no network access and only keeps open data sets in memory.

It is started by path in VLMEvalKit's own interpreter and imports nothing of the rest of this project. Requests are
JSON lines on standard input, replies are JSON lines on standard output, in order:

{"do": "hello"}                      -> {"ok": {"ms-vlmeval": version, "pandas": version, "numpy": version}}
{"do": "sets"}                       -> {"ok": [{"class", "names", "images", "build_judge"}]}, see WorkerProcess.sets
{"do": "open", "name", "called", "file", "images", "groups"}
                                     -> {"row": {...}} for every row, then
                                        {"ok": {"family", "grouping", "rows", "without_image"}}
{"do": "score", "name", "items": [{"id", "prediction", "given", "compare"}]}
                                     -> {"ok": [outcome, ...]}
{"do": "evaluate", "name", "predictions", "given"}
                                     -> {"ok": {"result": VLMEvalKit's table, "needs": [...], "failed": text}}
{"do": "probe", "name", "id"}        -> {"ok": [trial, ...]}, see probe.py
a request that fails                 -> {"error": text}

`called` is the data set's name in the other requests.

An outcome is one of
{"verdict", "extracted"}
{"verdict": "undecided", "reason"}
{"result": records, "failed": text}  VLMEvalKit's evaluation of this single row, and why it has no table
{"needs": {"key", "kind", ...}}      scoring needs a judge's reply (kind `judge`) or a comparison of two answers
                                     (kind `equal`)

After a need, the client adds the value to `given` under the need's `key` and sends the item again. Scoring then runs
from the start with all values given so far.
"""
