"""Several examples in one row, so that less of a batch is padding.

First fit: an example goes into the first row that has room for all of it, and
nothing is cut. With examples of 3, 4 and 2 tokens in rows of 6:

    row 0   a a a c c .     segments 1 1 1 2 2 0     positions 0 1 2 0 1 0
    row 1   b b b b . .     segments 1 1 1 1 0 0     positions 0 1 2 3 0 0

Segments keep the examples apart in attention (T5X's names: `*_segment_ids`,
`*_positions`), so a packed batch has the loss of the same examples unpacked.

Synopsis:

    rows = pack(draw, rng, num_rows=8, room=(256, 64))   # lists of examples
    segments([3, 2], 6), positions([3, 2], 6)
"""

from collections.abc import Sequence

import numpy as np

from t5_align.tasks.pretraining.mixture import Draw, Example


def pack(
  draw: Draw,
  rng: np.random.Generator,
  num_rows: int,
  room: tuple[int, int],
) -> list[list[Example]]:
  """Draw examples until one has no room in any row, and leave that one out.

  So a batch depends on its own generator alone. The one left out, in a few
  hundred, is rather a long one.

  Args:
    draw: makes an example.
    rng: where it is drawn from.
    num_rows: of a batch; each gets an example at least.
    room: tokens of a row's inputs and targets; where both share a row, as in a
      decoder-only model, (0, tokens).

  Raises:
    ValueError: an example is longer than a row, or no row is left without one.
  """
  rows: list[list[Example]] = [[] for _ in range(num_rows)]
  free = np.tile(np.asarray(room), (num_rows, 1))
  while True:
    example = draw(rng)
    need = needed(example, is_shared=room[0] == 0)
    if need[0] > room[0] or need[1] > room[1]:
      raise ValueError(
        f'an example has {need[0]} input and {need[1]} target tokens, a row'
        f' room for {room[0]} and {room[1]}; draw shorter ones or raise'
        ' input_lengths or target_length.'
      )
    fitting = np.flatnonzero((free >= need).all(axis=1))
    if not fitting.size:
      return rows
    rows[fitting[0]].append(example)
    free[fitting[0]] -= need


def needed(example: Example, is_shared: bool) -> tuple[int, int]:
  """Return the tokens of an example in a row of inputs and one of targets."""
  num_inputs, num_targets = len(example.inputs), len(example.targets)
  return (
    (0, num_inputs + num_targets)
    if is_shared
    else (
      num_inputs,
      num_targets,
    )
  )


def segments(lengths: Sequence[int], row_tokens: int) -> np.ndarray:
  """Return the segment of each place, from 1 up; 0 is padding."""
  row = np.zeros(row_tokens, np.int32)
  numbers = np.arange(1, len(lengths) + 1)
  row[: sum(lengths)] = np.repeat(numbers, lengths)
  return row


def positions(lengths: Sequence[int], row_tokens: int) -> np.ndarray:
  """Return each place's position in its own example."""
  row = np.zeros(row_tokens, np.int32)
  row[: sum(lengths)] = np.concatenate([np.arange(n) for n in lengths])
  return row
