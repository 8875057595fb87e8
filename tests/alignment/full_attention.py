"""Attention of a model in float64 NumPy, with every matrix whole.

Queries and keys are what the model's projections give; all that follows is done
here, for each sequence by itself and without its padding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from t5_align import position_bias
from t5_align.network import DecoderOnlyTransformer

# Where a site's attention is in the tree of parameters.
PLACE = {
  'encoder': ('encoder', 'attention'),
  'decoder': ('decoder', 'self_attention'),
  'cross': ('decoder', 'encoder_decoder_attention'),
}


def bias_and_content(network, params, inputs, targets, temperatures):
  """Yield site, bias [N, T, S] and q·k [L, N, T, S] of each sequence."""
  found = jax.device_get(
    _projections(
      network, params, _padded(inputs), _padded(targets), temperatures
    )
  )
  lengths = [len(x) for x in inputs], [len(x) for x in targets]
  for e, (num_inputs, num_targets) in enumerate(zip(*lengths)):
    if isinstance(network, DecoderOnlyTransformer):
      num_targets = num_inputs
    sizes = {
      'encoder': (num_inputs, num_inputs),
      'decoder': (num_targets, num_targets),
      'cross': (num_targets, num_inputs),
    }
    for site, (stack, module) in PLACE.items():
      if stack not in found or module not in found[stack]['layers_0']:
        continue
      T, S = sizes[site]
      layers = [
        found[stack][f'layers_{i}'][module] for i in range(len(found[stack]))
      ]
      query, key = (
        np.stack([x[name]['__call__'][0][e] for x in layers]).astype(float)
        for name in ('query', 'key')
      )
      content = np.einsum('LTNH,LSNH->LNTS', query[:, :T], key[:, :S])
      yield site, _bias(network, params, site, T, S), content


def _bias(network, params, site, T, S):
  if site == 'cross':
    return np.zeros((network.config.num_heads, T, S))
  buckets = position_bias.relative_position_bucket(
    np.arange(S)[None] - np.arange(T)[:, None],
    bidirectional=site == 'encoder',
    max_distance=network.config.relative_attention_max_distance,
  )
  table = np.asarray(params[site]['relpos_bias']['rel_embedding'], float)
  return table[:, buckets]


def rows(logits, causal):
  """Return the statistics of each row of [..., T, S] logits."""
  T, S = logits.shape[-2:]
  visible = np.tri(T, S, dtype=bool) if causal else np.ones((T, S), bool)
  probabilities = softmax(logits, visible)
  count = visible.sum(-1)
  seen = np.where(visible, logits, 0)
  mean = seen.sum(-1) / count
  deviation = np.where(visible, logits - mean[..., None], 0)
  maximum = probabilities.max(-1)
  logarithm = np.log(np.where(probabilities > 0, probabilities, 1))
  return {
    'max_probability': maximum,
    'log_max_probability': np.log(maximum),
    'entropy_nats': -(probabilities * logarithm).sum(-1),
    'logit_mean': mean,
    'logit_variance': (deviation**2).sum(-1) / count,
  }


def softmax(logits, visible):
  masked = np.where(visible, logits, -np.inf)
  weights = np.exp(masked - masked.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True)


def statistics(
  network, params, inputs, targets, temperatures, tau, decoder_edges
):
  """Return site -> statistic -> sums [E, L, N, G], with rows and keys [E, G].

  Args:
    network: the model.
    params: its parameters.
    inputs: sequences.
    targets: what the decoder reads.
    temperatures: what the model runs with.
    tau: site and number of keys -> τ there, [L, N].
    decoder_edges: of the decoder's groups of rows, by the keys that they see.
  """
  parts = {}
  for site, bias, content in bias_and_content(
    network, params, inputs, targets, temperatures
  ):
    causal = site == 'decoder'
    T, S = content.shape[-2:]
    counts = np.arange(T) + 1 if causal else np.full(T, S)
    by_row = np.stack([tau(site, n) for n in counts], axis=-1)  # [L, N, T]
    values = rows((content + bias) / by_row[..., None], causal)
    member = np.ones((T, 1))
    if causal:
      low, high = np.array(decoder_edges[:-1]), np.array(decoder_edges[1:])
      member = (counts[:, None] > low) & (counts[:, None] <= high)
    one = {name: value @ member for name, value in values.items()}
    one |= {'rows': member.sum(0), 'keys': counts @ member}
    parts.setdefault(site, []).append(one)
  return {
    site: {name: np.stack([one[name] for one in found]) for name in found[0]}
    for site, found in parts.items()
  }


@functools.partial(jax.jit, static_argnums=0)
def _projections(network, params, inputs, targets, temperatures):
  if isinstance(network, DecoderOnlyTransformer):
    tokens = (jnp.pad(inputs[:, :-1], ((0, 0), (1, 0))), inputs)
  else:
    tokens = (inputs, jnp.pad(targets[:, :-1], ((0, 0), (1, 0))), targets)
  _, variables = network.apply(
    {'params': params},
    *tokens,
    enable_dropout=False,
    temperatures=temperatures,
    capture_intermediates=lambda module, _: module.name in ('query', 'key'),
    mutable=['intermediates'],
    return_logits=False,
  )
  return variables['intermediates']


def _padded(sequences):
  padded = np.zeros((len(sequences), max(map(len, sequences))), np.int32)
  for row, sequence in zip(padded, sequences):
    row[: len(sequence)] = sequence
  return padded
