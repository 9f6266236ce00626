"""A hard limit on the tokens and dollars that a judge may cost."""

import math
from dataclasses import dataclass


@dataclass
class Budget:
    """Tokens and dollars spent so far, and tokens reserved for requests in flight.

    Attributes:
        tokens, usd: limits; infinity for none.
        input_price, output_price: US dollars per million tokens.
    """

    tokens: float = math.inf
    usd: float = math.inf
    input_price: float = 0.0
    output_price: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    _reserved: tuple[int, int] = (0, 0)

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Return the price in US dollars.

        >>> Budget(input_price=2.0, output_price=10.0).cost(1_000_000, 100_000)
        3.0
        """
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6

    @property
    def spent(self) -> float:
        """US dollars spent so far."""
        return self.cost(self.input_tokens, self.output_tokens)

    def reserve(self, input_tokens: int, output_tokens: int) -> bool:
        """Reserve a request's worst case. Returns False, and reserves nothing, if it could exceed a limit."""
        inputs, outputs = self._reserved[0] + input_tokens, self._reserved[1] + output_tokens
        total = (self.input_tokens + inputs, self.output_tokens + outputs)
        if sum(total) > self.tokens or self.cost(*total) > self.usd:
            return False
        self._reserved = (inputs, outputs)
        return True

    def settle(self, reserved: tuple[int, int], used: tuple[int, int]) -> None:
        """Replace a reservation by the tokens used. Both are (input tokens, output tokens)."""
        self._reserved = (self._reserved[0] - reserved[0], self._reserved[1] - reserved[1])
        self.input_tokens += used[0]
        self.output_tokens += used[1]
