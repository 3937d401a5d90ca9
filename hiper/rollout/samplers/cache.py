"""A key-value cache with a row for each running conversation.

Rows have their own lengths, live rows always come first (a finished row is overwritten by the last live one), and the buffers
are preallocated: a token costs one write, where a cache that concatenates copies everything it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

_BLOCK = 256  # positions by which buffers grow


@dataclass
class _Slots:
    """Where the next forward pass writes. The layers have it from here and not from their cache: buffers in a circle of references are kept
    until Python looks for such circles, which is seldom."""

    rows: int
    capacity: int = _BLOCK
    used: int = 0
    contiguous: bool = True
    chosen: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    positions: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))


class _SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, (rows, heads, positions, head size)."""

    def __init__(self, slots: _Slots) -> None:
        super().__init__()
        self._slots = slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        shape = (self._slots.rows, key_states.shape[1], self._slots.capacity, key_states.shape[3])
        self.keys, self.values = key_states.new_zeros(shape), value_states.new_zeros(shape)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        key_states = key_states.to(value_states.dtype)  # rotation has made float32 of what autocast made bfloat16
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        if self.keys.shape[2] < self._slots.capacity:
            self.keys, self.values = (_grown(buffer, self._slots.capacity) for buffer in (self.keys, self.values))
        chosen, positions, used = self._slots.chosen, self._slots.positions, self._slots.used
        self.keys[chosen[:, None], :, positions] = key_states.transpose(1, 2)
        self.values[chosen[:, None], :, positions] = value_states.transpose(1, 2)
        if self._slots.contiguous:  # a view costs nothing; a subset has to be gathered
            count = len(chosen)
            return self.keys[:count, :, :used], self.values[:count, :, :used]
        return self.keys[chosen, :, :used], self.values[chosen, :, :used]

    def move(self, source: int, target: int, length: int) -> None:
        assert self.keys is not None and self.values is not None
        self.keys[target, :, :length] = self.keys[source, :, :length]
        self.values[target, :, :length] = self.values[source, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._slots.used, 0

    def get_seq_length(self) -> int:
        return self._slots.used

    def get_max_length(self) -> int:
        return -1


class SlotCache(Cache):
    """The cache handed to the model. `place` says where the next forward pass writes."""

    def __init__(self, rows: int, layers: int, keep_hidden: bool = False) -> None:
        """Buffers are allocated by the first pass.

        Args:
            rows: most conversations at once.
            layers: of the network.
            keep_hidden: make room for the last hidden states, too; whoever runs the network hands them to `keep`.
        """
        self._slots = _Slots(rows)
        self._keep_hidden = keep_hidden
        self._hidden: Tensor | None = None
        super().__init__(layers=[_SlotLayer(self._slots) for _ in range(layers)])

    def place(self, chosen: Tensor, positions: Tensor) -> Tensor:
        """Set the rows and positions of the next pass.

        Args:
            chosen: (B,) long, the rows, ascending.
            positions: (B, Q) long, where each new token goes in its row.

        Returns:
            (B, 1, Q, K) bool: a token sees the positions up to its own. Whatever an earlier occupant left beyond is never seen.
        """
        slots = self._slots
        slots.chosen, slots.positions = chosen, positions
        slots.contiguous = bool((chosen == torch.arange(len(chosen), device=chosen.device)).all())
        slots.used = int(positions.max()) + 1
        while slots.capacity < slots.used:
            slots.capacity += _BLOCK
        keys = torch.arange(slots.used, device=positions.device)
        return (keys <= positions[:, None, :, None]).contiguous()

    def keep(self, hidden: Tensor) -> None:
        """Write the last hidden states of a pass, (B, Q, D), to its rows and positions, if they are kept at all."""
        if not self._keep_hidden:
            return
        if self._hidden is None:
            self._hidden = hidden.new_zeros((self._slots.rows, self._slots.capacity, hidden.shape[2]))
        if self._hidden.shape[1] < self._slots.capacity:
            self._hidden = _grown(self._hidden[:, None], self._slots.capacity)[:, 0]
        self._hidden[self._slots.chosen[:, None], self._slots.positions] = hidden

    def hidden(self, row: int, length: int) -> Tensor:
        """(length, D) a copy of what is kept of a row."""
        assert self._hidden is not None
        return self._hidden[row, :length].clone()

    def move(self, source: int, target: int, length: int) -> None:
        """Copy one row's first `length` positions over another's."""
        if self._hidden is not None:
            self._hidden[target, :length] = self._hidden[source, :length]
        for layer in self.layers:
            if layer.is_initialized:
                assert isinstance(layer, _SlotLayer)
                layer.move(source, target, length)


def _grown(buffer: Tensor, capacity: int) -> Tensor:
    rows, heads, length, size = buffer.shape
    grown = buffer.new_zeros((rows, heads, capacity, size))
    grown[:, :, :length] = buffer
    return grown
