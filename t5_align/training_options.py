"""How a model is trained, as data; `t5_align.training` says what it means.

Synopsis:

    Training(num_steps=1000, optimizer='adamw', learning_rate=2e-3)
"""

import dataclasses
from typing import Any

from t5_align.nearest import nearest

# Fields that decide how a run is kept, not what a step computes.
_KEEPING = ('log_every', 'checkpoint_every', 'keep_checkpoints', 'data_workers')
_COUNTS = (
  *('num_steps', 'batch_size', 'target_length', 'warmup_steps'),
  *_KEEPING[:-1],
)


@dataclasses.dataclass(frozen=True)
class Training:
  """How a model is trained.

  Attributes:
    num_steps: optimizer steps in the whole run.
    batch_size: rows in a step: examples, or several of them if packed.
    input_lengths: encoder lengths in tokens, ascending; a batch is padded to
      the first that holds it, so this is the number of shapes compiled. A
      decoder-only model has none of them.
    target_length: decoder length in tokens; every target must fit, and in a
      decoder-only model what comes before it, too.
    pack: put several examples into a row, of the last of `input_lengths`.
    optimizer: 'adafactor' (T5's) or 'adamw'.
    learning_rate: the peak of the schedule, reached after the warm-up.
    schedule: 'rsqrt' (T5's) or 'cosine' (to zero at `num_steps`).
    warmup_steps: steps of linear warm-up, at least 1.
    weight_decay: decoupled weight decay per unit of learning rate.
    max_gradient_norm: gradients are scaled down to this global norm.
    z_loss: the coefficient c of the squared log partition function.
    seed: of the initial parameters, the data and the dropout.
    log_every: steps between two lines of the log.
    checkpoint_every: steps between two checkpoints; the last is always saved.
    keep_checkpoints: how many of the newest checkpoints stay on disk.
    data_workers: processes that make batches ahead of the step; 0 is a thread
      of this one. They change the speed and nothing else.
  """

  num_steps: int = 10_000
  batch_size: int = 128
  input_lengths: tuple[int, ...] = (128,)
  target_length: int = 32
  pack: bool = False
  optimizer: str = 'adafactor'
  learning_rate: float = 1e-2
  schedule: str = 'rsqrt'
  warmup_steps: int = 1000
  weight_decay: float = 0.0
  max_gradient_norm: float = 1.0
  z_loss: float = 1e-4
  seed: int = 0
  log_every: int = 100
  checkpoint_every: int = 1000
  keep_checkpoints: int = 2
  data_workers: int = 0

  def __post_init__(self):
    # gin hands over lists.
    object.__setattr__(self, 'input_lengths', tuple(self.input_lengths))
    _check_choice('optimizer', self.optimizer, ('adafactor', 'adamw'))
    _check_choice('schedule', self.schedule, ('rsqrt', 'cosine'))
    for field in _COUNTS:
      if getattr(self, field) < 1:
        raise ValueError(
          f'{field} is {getattr(self, field)}, wanted at least 1.'
        )
    if self.checkpoint_every % self.log_every:
      raise ValueError(
        f'checkpoint_every is {self.checkpoint_every}, wanted a multiple of '
        f'log_every ({self.log_every}): no loss is saved unchecked.'
      )
    ascending = sorted(set(self.input_lengths))
    if not ascending or list(self.input_lengths) != ascending:
      raise ValueError(
        f'input_lengths is {self.input_lengths}, wanted ascending lengths.'
      )

  def deciding(self) -> dict[str, Any]:
    """Return the fields that decide every step of a run."""
    fields = dataclasses.asdict(self)
    if self.schedule == 'rsqrt':
      del fields['num_steps']  # a cosine reaches zero there
    return {k: v for k, v in fields.items() if k not in _KEEPING}


def _check_choice(field: str, got: str, choices: tuple[str, ...]) -> None:
  """Raise ValueError, naming the nearest choice."""
  if got not in choices:
    raise ValueError(f'Unknown {field} {got!r}; {nearest(got, choices)}')
