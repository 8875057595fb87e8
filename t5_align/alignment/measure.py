"""Measure attention in forward passes, with memory linear in length.

The forward pass is the model's own, compiled a layer at a time. Each layer's
kernel leaves the statistics of its rows (`kernels.statistics`), which are
summed inside the layer's program; where they are asked for, a sweep over other
temperatures and a sample of whole rows are taken from the same queries and
keys. A temperature acts on its own layer's probabilities but not on its logits,
so one pass gives a layer's statistics at many temperatures. Parameters on a
mesh of devices are used where they are, and sequences are split over its data
axis.

Synopsis:

    meter = AttentionMeter(network, params, sites=('encoder',))
    statistics = meter.measure(inputs, targets, length=2048)
    statistics = meter.measure(inputs, targets, 2048, temperatures,
                               factors=np.geomspace(0.5, 2, 9))
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from t5_align import sharding
from t5_align import temperature as temperature_lib
from t5_align.alignment import row_sample
from t5_align.alignment.statistics import (
  STATISTICS,
  AttentionStatistics,
  RowSample,
  SiteStatistics,
)
from t5_align.inference import padded_length
from t5_align.kernels.statistics import SoftmaxStatistics
from t5_align.kernels.sweep import sweep_statistics
from t5_align.network import DecoderOnlyTransformer, Transformer
from t5_align.stacks import DecoderLayer, EncoderLayer
from t5_align.temperature import SITES, Temperatures

# Name of the attention module in a layer, within encoder or decoder -> site.
_SITE_OF_MODULE = {
  ('encoder', 'attention'): 'encoder',
  ('decoder', 'self_attention'): 'decoder',
  ('decoder', 'encoder_decoder_attention'): 'cross',
}


class AttentionMeter:
  """Measures the attention of one model.

  Attributes:
    sites: what is measured, in the order in which a forward pass meets it.
    tokens_per_batch: input tokens that are computed together, by each copy of
      the parameters.
    num_passes: forward passes of the model so far, over all of the sequences.
  """

  def __init__(
    self,
    network: Transformer | DecoderOnlyTransformer,
    params: Any,
    sites: Sequence[str],
    *,
    tokens_per_batch: int = 16_384,
  ):
    self.sites = check_sites(sites, network)
    self.tokens_per_batch = tokens_per_batch
    self.num_passes = 0
    self._network = network
    self._params = params
    self._mesh = sharding.mesh_of(params)

  def measure(
    self,
    inputs: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    length: int,
    temperatures: Temperatures | None = None,
    *,
    factors: np.ndarray | None = None,
    rows_per_sequence: int = 0,
    groups: Sequence[int] | None = None,
    strata: Sequence[int] | None = None,
  ) -> AttentionStatistics:
    """Run the model over sequences and return the statistics of its attention.

    Args:
      inputs: token ids as the model reads them.
      targets: what the decoder reads; only for sites of a decoder with an
        encoder.
      length: tokens of an input, for the record.
      temperatures: instead of the model's own.
      factors: M numbers; also measure every row at τ · factor.
      rows_per_sequence: R, how many rows to look at whole; 0 for none.
      groups: edges of the decoder's groups of rows, in keys, ascending: group g
        has the rows that see more than groups[g] and at most groups[g + 1].
        None puts all rows into one group; other sites always have one.
      strata: kind of text of each sequence, for standard errors.

    Raises:
      ValueError: there are no sequences.
    """
    if not inputs:
      raise ValueError('There are no sequences to measure attention on.')
    config = self._network.config
    if temperatures is None:
      temperatures = config.temperatures
    swept = None if factors is None else np.asarray(factors, np.float32)
    traced, swept = sharding.replicate(
      self._mesh, (temperatures.as_arrays(config), swept)
    )
    size = max(1, self.tokens_per_batch // max(map(len, inputs)))
    size *= sharding.data_size(self._mesh)
    size = sharding.round_up(min(size, len(inputs)), self._mesh)
    parts = []
    for start in range(0, len(inputs), size):
      rows = range(start, min(start + size, len(inputs)))
      batch = self._batch(inputs, targets, rows, size)
      with sharding.use_mesh(self._mesh):
        measured = _measure(
          self._network,
          self.sites,
          self._params,
          *sharding.split_batch(self._mesh, batch),
          traced,
          swept,
          num_sampled_rows=rows_per_sequence,
          groups=None if groups is None else tuple(groups),
        )
      # Sequences that only fill the batch up are left out.
      parts.append(_to_host(measured, len(rows), length, rows_per_sequence))
    self.num_passes += 1
    whole = AttentionStatistics.merge(parts)
    if strata is None:
      return whole
    kinds = np.asarray(strata)
    return dataclasses.replace(
      whole,
      sites={
        name: dataclasses.replace(site, strata=kinds)
        for name, site in whole.sites.items()
      },
    )

  def _batch(self, inputs, targets, rows, size):
    """Padded input and target tokens; targets None where nothing reads them."""
    padded_inputs = _pad([inputs[i] for i in rows], size)
    if isinstance(self._network, DecoderOnlyTransformer):
      return None, padded_inputs
    if self.sites == ('encoder',):
      return padded_inputs, None
    return padded_inputs, _pad([targets[i] for i in rows], size)


def check_sites(
  sites: Sequence[str], network: Transformer | DecoderOnlyTransformer
) -> tuple[str, ...]:
  """Return the sites in the order of a forward pass, each once.

  Raises:
    ValueError: there are none, or the model has no such attention.
  """
  has = SITES
  if isinstance(network, DecoderOnlyTransformer):
    has = ('decoder',)
  for site in sites:
    if site not in has:
      raise ValueError(
        f'{site!r} is no attention site of this model; it has {", ".join(has)}.'
      )
  if not sites:
    raise ValueError(f'No attention site was named; wanted {", ".join(has)}.')
  return tuple(site for site in has if site in sites)


def _pad(rows: Sequence[Sequence[int]], size: int) -> np.ndarray:
  """[size, padded length]; missing sequences repeat the first."""
  length = padded_length(max(map(len, rows)))
  padded = np.zeros((size, length), np.int32)
  for i in range(size):
    row = rows[i] if i < len(rows) else rows[0]
    padded[i, : len(row)] = row
  return padded


def _measure(
  network, sites, params, inputs, targets, temperatures, factors, **asked
):
  """Sums of each sequence: site -> name -> [B, N, G] of each layer."""
  inputs, targets = jax.tree.map(jnp.asarray, (inputs, targets))
  found: dict[str, dict[str, Any]] = {}

  def run_compiled(layer, args, kwargs, context):
    """Run a layer's own program, and keep the sums that it returns."""
    module = context.module
    is_layer = isinstance(module, EncoderLayer | DecoderLayer)
    # A layer without a path stands alone: this is it, being compiled.
    if not is_layer or not module.path:
      return layer(*args, **kwargs)
    leaves, tree = jax.tree.flatten((args, kwargs))
    is_array = [isinstance(leaf, jax.Array) for leaf in leaves]
    y, sums = _measure_layer(
      module.clone(parent=None, name=None),
      sites,
      module.variables['params'],
      [leaf if traced else None for leaf, traced in zip(leaves, is_array)],
      factors,
      tree=tree,
      constants=tuple(
        None if traced else leaf for leaf, traced in zip(leaves, is_array)
      ),
      **asked,
    )
    for site, own in sums.items():
      for name, value in own.items():
        found.setdefault(site, {}).setdefault(name, []).append(value)
    return y

  options: dict[str, Any] = dict(
    enable_dropout=False, temperatures=temperatures
  )
  with nn.intercept_methods(run_compiled):
    if targets is None:
      network.apply({'params': params}, inputs, method='encode', **options)
    else:
      shifted = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)))
      tokens = (shifted, targets)
      if inputs is not None:
        tokens = (inputs, *tokens)
      network.apply({'params': params}, *tokens, return_logits=False, **options)
  return found


# The layers of a stack differ in their arrays alone: one program serves all,
# where that of a whole network takes longer to compile the deeper it is.
@functools.partial(
  jax.jit,
  static_argnames=(
    'layer', 'sites', 'tree', 'constants', 'num_sampled_rows', 'groups'
  ),
)  # fmt: skip
def _measure_layer(
  layer,
  sites,
  params,
  arrays,
  factors,
  *,
  tree,
  constants,
  num_sampled_rows,
  groups,
):
  """Return a layer's output, and site -> name -> its sums [B, N, G]."""
  found: dict[str, dict[str, Any]] = {}

  def look(attend, args, kwargs, context):
    """Take from each attention's queries and keys what the kernel doesn't."""
    if context.method_name != 'attend_and_project':
      return attend(*args, **kwargs)
    site = _site(layer, context.module.name)
    if site in sites:
      query, key, _, mask, temperature = args
      position = {k: v for k, v in kwargs.items() if k != 'deterministic'}
      found[site] = _look_closer(
        query,
        key,
        mask,
        temperature,
        factors,
        num_sampled_rows,
        groups if site == 'decoder' else None,
        bias_table=position.get('bias_table'),
        bidirectional=position.get('bidirectional', False),
        max_distance=layer.config.relative_attention_max_distance,
      )
    return attend(*args, **kwargs)

  leaves = [a if c is None else c for a, c in zip(arrays, constants)]
  args, kwargs = jax.tree.unflatten(tree, leaves)
  with nn.intercept_methods(look):
    y, variables = layer.apply(
      {'params': params}, *args, mutable=['intermediates'], **kwargs
    )
  for module, sown in variables['intermediates'].items():
    site = _site(layer, module)
    if site in sites:
      own = found[site]
      membership = own.pop('membership')
      counts = own.pop('key_counts').astype(jnp.float32)
      own['rows'] = jnp.sum(membership, axis=1)
      own['key_sum'] = jnp.einsum('BT,BTG->BG', counts, membership)
      statistics = _row_values(sown['attention_statistics'][0])
      for name, value in statistics.items():
        own[name] = jnp.einsum('BNT,BTG->BNG', value, membership)
  return y, sharding.keep_whole(found)


def _site(layer, module):
  """The site of an attention module of that name."""
  return _SITE_OF_MODULE[
    'encoder' if isinstance(layer, EncoderLayer) else 'decoder', module
  ]


def _look_closer(
  query, key, mask, temperature, factors, num_sampled_rows, groups, **bias
):
  """Key counts, and what was asked for of a sweep and of whole rows."""
  B, T = query.shape[:2]
  counts = mask.key_counts(jnp.arange(T), key.shape[1])
  counts = jnp.broadcast_to(counts, (B, T))
  membership = _membership(counts, groups)
  found = {'key_counts': counts, 'membership': membership}
  arguments = dict(bias, mask=mask)
  resolved = temperature_lib.resolve(temperature, lambda: counts)
  if factors is not None:
    swept = sweep_statistics(
      query, key, temperature=resolved, factors=factors, **arguments
    )
    safe = jnp.where(swept.max_probability > 0, swept.max_probability, 1.0)
    for name, value in (
      ('max_probability', swept.max_probability),
      ('log_max_probability', jnp.log(safe)),
      ('entropy_nats', swept.entropy_nats),
    ):
      total = jnp.einsum('MBNT,BTG->MBNG', value, membership)
      found[f'sweep/{name}'] = total
  if num_sampled_rows:
    tau = jnp.asarray(resolved, jnp.float32)
    tau = tau.reshape(1, -1, 1, 1) if tau.ndim < 2 else tau[..., None]
    rows = row_sample.sample_rows(
      query,
      key,
      jnp.sum(counts > 0, axis=1),
      num_rows=num_sampled_rows,
      temperature=tau,
      **arguments,
    )
    found |= {f'sample/{name}': value for name, value in rows.items()}
  return found


def _membership(counts, groups):
  """1 where a row belongs to a group, [B, T, G]; rows without keys to none."""
  if groups is None:
    return (counts > 0)[..., None].astype(jnp.float32)
  edges = jnp.asarray(groups, jnp.int32)
  counts = counts[..., None]
  inside = (counts > edges[None, None, :-1]) & (counts <= edges[None, None, 1:])
  return inside.astype(jnp.float32)


def _row_values(statistics: SoftmaxStatistics) -> dict[str, Any]:
  """STATISTICS of each row, [B, N, T]."""
  safe = jnp.where(statistics.valid, statistics.denominator, 1.0)
  values = (
    statistics.max_probability,
    -jnp.log(safe),
    statistics.entropy_nats,
    statistics.logit_mean,
    statistics.logit_variance,
  )
  return dict(zip(STATISTICS, values))


def _to_host(measured, num_sequences, length, num_sampled_rows):
  """Turn one batch's sums into statistics, without what filled it up."""
  sites, on_host = {}, jax.device_get(measured)
  for site in SITES:  # JAX sorts dictionaries by name
    if site not in on_host:
      continue
    found = on_host[site]

    def stack(name, axis, found=found):
      # A list of [B, N, …], one a layer -> [B, L, N, …]
      layers = np.stack(found[name], axis).astype(np.float64)
      return layers.take(range(num_sequences), axis - 1)

    rows = np.asarray(found['rows'][0][:num_sequences], np.float64)
    sums = {name: stack(name, 1) for name in STATISTICS}
    _check_finite(site, sums, rows)
    sweep = None
    if 'sweep/entropy_nats' in found:
      names = [name for name in found if name.startswith('sweep/')]
      sweep = {name.removeprefix('sweep/'): stack(name, 2) for name in names}
    sites[site] = SiteStatistics(
      site=site,
      sums=sums,
      rows=rows,
      key_sum=np.asarray(found['key_sum'][0][:num_sequences], np.float64),
      sweep=sweep,
      sample=_sample(found, stack, num_sampled_rows),
    )
  return AttentionStatistics(length, sites)


def _check_finite(site, sums, rows):
  """Raise where a row with keys has no largest probability: it is not a number.

  A softmax of NaN looks like one of a row without keys.
  """
  has_rows = np.broadcast_to(
    (rows > 0)[:, None, None], sums['max_probability'].shape
  )
  wrong = has_rows & ~(sums['max_probability'] > 0)
  wrong |= ~np.isfinite(sum(sums.values()))
  if wrong.any():
    layer = int(np.nonzero(wrong)[1].min())
    raise ValueError(
      f"Attention is not finite in the {site}'s layer {layer}. Try"
      " dtype='float32', or check the parameters."
    )


def _sample(found, stack, num_sampled_rows):
  if not num_sampled_rows:
    return None

  def mean(name) -> Any:
    if found[f'sample/{name}'][0] is None:
      return None
    return stack(f'sample/{name}', 1).mean(0)  # over sequences

  mass = mean('distance_mass')  # [L, N, D]
  num_buckets = 0 if mass is None else mass.shape[-1]
  return RowSample(
    rows_per_sequence=num_sampled_rows,
    max_probability=stack('sample/max_probability', 1),
    entropy_nats=stack('sample/entropy_nats', 1),
    logit_skewness=mean('logit_skewness'),
    logit_excess_kurtosis=mean('logit_excess_kurtosis'),
    bias_overlap=mean('bias_overlap'),
    content_nats=mean('content_nats'),
    distances=row_sample.distance_edges(num_buckets),
    distance_mass=None if mass is None else np.moveaxis(mass, -1, 0),
  )
