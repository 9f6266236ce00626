"""What a step costs in counts that no machine can disturb: passes of the policy, of the field, tokens, bytes kept."""

from rlfr_vlm.models.towers import find_language_tower


class Counts:
    """Counts while a trainer trains; and, from the rollouts themselves, what it should have come to.

    Attributes:
        blocks: blocks of the policy that ran, outside of generation.
        score_calls, update_calls: of the field.
        scored, updated: tokens the field saw, each at all layers.
        kept: bytes of latents that an update was given.
        partners: response tokens that have a next one, by which they are scored.
        accepted_partners: those of accepted rows.
        accepted_positions: positions of accepted rows, padding included.
    """

    def __init__(self, trainer):
        self.blocks = self.score_calls = self.update_calls = self.scored = self.updated = self.kept = 0
        self.partners = self.accepted_partners = self.accepted_positions = 0
        self._inside = False
        for block in find_language_tower(trainer.model).layers:
            block.register_forward_hook(lambda *_: setattr(self, "blocks", self.blocks + self._inside))
        logps = trainer._get_per_token_logps_and_entropies

        def counted(*arguments, **settings):
            self._inside = True
            try:
                return logps(*arguments, **settings)
            finally:
                self._inside = False

        trainer._get_per_token_logps_and_entropies = counted
        self._note_rollouts(trainer)
        if trainer.flow is not None:
            self._count_field(trainer.flow)

    def _note_rollouts(self, trainer):
        roll_out = trainer.roll_out

        def noted(*arguments, **more):
            output = roll_out(*arguments, **more)
            mask = output["completion_mask"]
            partners = (mask.sum(dim=1) - 1).clamp(min=0)  # token_pre: the last token has no next one
            accepted = output["flow_weight"] > 0 if "flow_weight" in output else partners < 0
            self.partners += int(partners.sum())
            self.accepted_partners += int(partners[accepted].sum())
            self.accepted_positions += int(accepted.sum()) * mask.shape[1]
            return output

        trainer.roll_out = noted

    def _count_field(self, flow):
        score, accumulate = flow.score, flow.accumulate

        def tokens_of(work, *arguments):
            calls = []
            hook = flow.field.register_forward_hook(lambda _m, given, _o: calls.append(given[0].shape[-2]))
            result = work(*arguments)
            hook.remove()
            return result, calls

        def scoring(*arguments):
            result, calls = tokens_of(score, *arguments)
            self.score_calls, self.scored = self.score_calls + len(calls), self.scored + sum(calls)
            return result

        def updating(latents, valid, weights, *classes):
            self.kept += latents.hidden.nbytes
            _, calls = tokens_of(accumulate, latents, valid, weights, *classes)
            self.update_calls, self.updated = self.update_calls + len(calls), self.updated + sum(calls)

        flow.score, flow.accumulate = scoring, updating

    def as_dict(self):
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}
