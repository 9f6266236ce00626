"""The embedded task end to end: policy, flow, training, evaluation, report."""
