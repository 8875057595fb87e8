"""The loss of a batch, and what is logged of it.

With logits z, targets y and loss weights w,

  loss = sum w (log Z - z_y + c (log Z)^2) / sum w,
  log Z = log sum_v exp(z_v),

where c (`z_loss`, 1e-4) keeps log Z near 0 as T5X does (`t5x/losses.py`).

Synopsis:

    loss, metrics = batch_loss(logits, batch, z_loss=1e-4, num_tasks=2)
"""

from collections.abc import Mapping

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from t5_align.loss_log import Metrics


def batch_loss(
  logits: Float[Array, 'B T V'],
  batch: Mapping[str, np.ndarray | Array],
  z_loss: float,
  num_tasks: int = 1,
) -> tuple[Float[Array, ''], Metrics]:
  """Return the loss and the metrics, whose gradient norm is still 0.

  Args:
    logits: [B, T, V], any float type; the loss is computed in float32.
    batch: its `decoder_target_tokens`, `decoder_loss_weights` and
      `decoder_tasks`, [B, T] each. Where the weight is 0 nothing counts.
    z_loss: coefficient of the squared log partition function.
    num_tasks: how many tasks there are.
  """
  targets = jnp.asarray(batch['decoder_target_tokens'])
  weights = jnp.asarray(batch['decoder_loss_weights'])
  logits = logits.astype(jnp.float32)
  log_z = jax.nn.logsumexp(logits, axis=-1)  # [B, T]
  target_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)
  surprise = log_z - target_logits[..., 0]
  losses = surprise + z_loss * jnp.square(log_z)
  total = jnp.sum(weights)
  loss = jnp.sum(losses * weights) / jnp.where(total > 0, total, 1.0)
  counts = weights > 0
  right = jnp.argmax(logits, axis=-1) == targets
  faultless = jnp.all(right | ~counts, axis=-1)
  tasks = jnp.asarray(batch['decoder_tasks'])
  by_task = [counts & (tasks == task) for task in range(num_tasks)]

  def sums(values):
    values = values.astype(jnp.float32)
    return jnp.stack([jnp.sum(jnp.where(of, values, 0.0)) for of in by_task])

  return loss, Metrics(
    loss=loss,
    sequence_accuracy=jnp.mean(faultless.astype(jnp.float32)),
    gradient_norm=jnp.zeros(()),
    task_losses=sums(surprise),
    task_right=sums(right),
    task_tokens=sums(counts),
  )
