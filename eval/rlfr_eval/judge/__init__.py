"""Judges in a run: the phase that asks them, stored verdicts, VLMEvalKit cases. The judges: rlfr_vlm/judging."""
