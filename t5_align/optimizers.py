"""Optimizers and learning rates.

The learning rate follows T5 (Raffel et al. 2020, section 3.1.2), with a
linear warm-up before the decay by the square root of the step:

  rate(i) = peak * min((i + 1) / w, sqrt(w / (i + 1))),  w = warm-up steps;

`schedule='cosine'` replaces the second factor by half a cosine down to zero
at the last step.

Synopsis:

    optimizer = make_optimizer(Training(optimizer='adamw'))   # optax's
    learning_rate(Training())(0)
"""

from jax import numpy as jnp
import optax

from t5_align.training_options import Training


def learning_rate(training: Training) -> optax.Schedule:
  """Return the schedule as a function of the step, counted from 0."""
  peak, warmup = training.learning_rate, training.warmup_steps

  def rsqrt(step):
    done = jnp.asarray(step, jnp.float32) + 1.0
    return peak * jnp.minimum(done / warmup, jnp.sqrt(warmup / done))

  def cosine(step):
    done = jnp.asarray(step, jnp.float32) + 1.0
    rest = max(training.num_steps - warmup, 1)
    progress = jnp.clip((done - warmup) / rest, 0.0, 1.0)
    decay = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return peak * jnp.minimum(done / warmup, decay)

  return rsqrt if training.schedule == 'rsqrt' else cosine


def make_optimizer(training: Training) -> optax.GradientTransformation:
  """Return the gradient transformation that `training` names."""
  schedule = learning_rate(training)
  if training.optimizer == 'adafactor':
    # Raffel et al. 2020: factored second moments, no momentum, steps scaled
    # by the parameter's own RMS.
    optimizer = optax.adafactor(
      schedule, weight_decay_rate=training.weight_decay or None
    )
  else:
    optimizer = optax.adamw(
      schedule, b2=0.98, weight_decay=training.weight_decay
    )
  return optax.chain(
    optax.clip_by_global_norm(training.max_gradient_norm), optimizer
  )
