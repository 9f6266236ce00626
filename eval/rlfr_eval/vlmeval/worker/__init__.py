"""The process in which VLMEvalKit runs. It asks nobody, and keeps nothing but the rows of the sets that are open.

It is started by path, in VLMEvalKit's own interpreter, and imports nothing of the rest of this project. Requests come
as JSON lines on standard input, replies go as JSON lines to standard output, in order:

{"do": "hello"}                      -> {"ok": {"ms-vlmeval": version, "pandas": version, "numpy": version}}
{"do": "open", "name", "called", "file", "images", "groups"}
                                     -> {"row": {...}} for every row, then {"ok": {"family", "rows", "without_image"}}
{"do": "score", "name", "items": [{"id", "prediction", "given", "compare"}]}
                                     -> {"ok": [outcome, ...]}
{"do": "evaluate", "name", "predictions", "given"}
                                     -> {"ok": {"result": its own records, "needs": [...], "failed": text}}
anything that fails                  -> {"error": text}

`called` is what the other requests name it by.

An outcome is {"verdict", "extracted"}; or {"verdict": "undecided", "reason"}; or {"result": records} of an evaluation
of that one row; or {"needs": {...}}: VLMEvalKit's scoring wants a judge's reply, or to know whether two answers are
equal. Whoever asks adds the answer to `given` under the `key` of the need and asks again: scoring is run from the
start with what is known so far.
"""
