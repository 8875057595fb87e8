"""Statistics of a model's attention against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5_align import laws
from t5_align.alignment.measure import AttentionMeter
from t5_align.alignment.statistics import STATISTICS, AttentionStatistics
from t5_align.kernels import blocks
from t5_align.temperature import Law, Temperatures
from tests.alignment import full_attention
from tests.alignment.random_model import VOCAB_SIZE, random_model

# Sequences that are padded, and one that fills its place.
LENGTHS = (40, 33, 27, 18)
TARGET_LENGTHS = (9, 16, 5, 12)
BY_HEAD = ((0.5, 0.8), (1.3, 0.6))
# Sites, whether there is an encoder, temperatures, and τ of so many keys.
CASES = {
  'none': (False, Temperatures(), lambda site, n: np.ones((2, 2))),
  'by_head': (
    False,
    Temperatures(encoder=BY_HEAD, decoder=0.7, cross=(0.9, 1.4)),
    lambda site, n: {
      'encoder': np.array(BY_HEAD),
      'decoder': np.full((2, 2), 0.7),
      'cross': np.array([[0.9, 0.9], [1.4, 1.4]]),
    }[site],
  ),
  'law': (
    False,
    Temperatures(
      encoder=Law('log_n', (20.0,)),
      decoder=Law('log_n', (8.0,)),
      cross=Law('log_n', (20.0,)),
    ),
    lambda site, n: np.full((2, 2), _log_n(n, 8 if site == 'decoder' else 20)),
  ),
  'decoder_only': (True, Temperatures(), lambda site, n: np.ones((2, 2))),
  'decoder_only_law': (
    True,
    Temperatures(decoder=Law('log_n', (8.0,))),
    lambda site, n: np.full((2, 2), _log_n(n, 8)),
  ),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  """Several blocks in each input."""
  monkeypatch.setattr(blocks, 'block_lengths', lambda num_rows: (16, 8))


def _log_n(num_keys, training_length):
  return float(laws.LAWS['log_n'].function(float(num_keys), training_length))


def tokens(lengths, seed=0):
  random = np.random.default_rng(seed)
  return [random.integers(2, VOCAB_SIZE, n).tolist() for n in lengths]


INPUTS, TARGETS = tokens(LENGTHS), tokens(TARGET_LENGTHS, 1)


def meter(sites=('encoder',), decoder_only=False, **options):
  tokens_per_batch = options.pop('tokens_per_batch', 100)
  network, params = random_model(2, 2, decoder_only, **options)
  return AttentionMeter(
    network, params, sites, tokens_per_batch=tokens_per_batch
  )


def assert_close(ours, theirs, message=''):
  """Float32 rounding, of the largest value."""
  scale = max(1.0, np.abs(theirs).max())
  np.testing.assert_allclose(
    ours, theirs, atol=1e-5 * scale, rtol=0, err_msg=message
  )


@pytest.mark.parametrize(
  'case, attention',
  [
    *((case, 'chunked') for case in CASES if case != 'decoder_only'),
    *((case, 'reference') for case in CASES if not case.endswith('law')),
  ],
)
def test_equals_numpy_on_full_matrices(case, attention):
  decoder_only, temperatures, tau = CASES[case]
  sites = ('decoder',) if decoder_only else ('encoder', 'decoder', 'cross')
  edges = (0, 4, 7, 20, 40) if decoder_only else (0, 4, 7, 16)
  network, params = random_model(2, 2, decoder_only)
  measured = meter(sites, decoder_only, attention=attention).measure(
    INPUTS, TARGETS, 40, temperatures, groups=edges
  )
  expected = full_attention.statistics(
    network,
    params,
    INPUTS,
    TARGETS,
    temperatures.as_arrays(network.config),
    tau,
    edges,
  )
  for site in sites:
    ours, theirs = measured.sites[site], expected[site]
    np.testing.assert_array_equal(ours.rows, theirs['rows'])
    np.testing.assert_array_equal(ours.key_sum, theirs['keys'])
    for name in STATISTICS:
      mean = theirs[name].sum(0) / theirs['rows'].sum(0)
      assert_close(ours.mean(name), mean, f'{site} {name}')


SWEPT = np.array([0.4, 1.0, 1.7])


def look(decoder_only, part=slice(None), tau=BY_HEAD, tokens_per_batch=200):
  """Measure with a sweep and a sample; the same program wherever it can be."""
  site = 'decoder' if decoder_only else 'encoder'
  return meter(
    (site,), decoder_only, tokens_per_batch=tokens_per_batch
  ).measure(
    INPUTS[part],
    TARGETS[part],
    40,
    Temperatures(**{site: tau}),
    factors=SWEPT,
    rows_per_sequence=4,
    groups=(0, 8, 40),
  )


def assert_same(first, second):
  for ours, theirs in zip(first.sites.values(), second.sites.values()):
    assert ours.num_sequences == theirs.num_sequences
    np.testing.assert_array_equal(ours.rows, theirs.rows)
    np.testing.assert_array_equal(ours.key_sum, theirs.key_sum)
    for name in (*STATISTICS, 'logit_std'):
      assert_close(ours.mean(name), theirs.mean(name), name)
      assert_close(ours.stderr(name), theirs.stderr(name), name)
    for name in ours.sweep:
      assert_close(ours.sweep[name], theirs.sweep[name], name)
    a, b = ours.sample, theirs.sample
    assert a.distances == b.distances
    assert_close(a.entropy_nats, b.entropy_nats)
    assert_close(a.logit_skewness, b.logit_skewness)
    assert_close(a.bias_overlap, b.bias_overlap)
    assert_close(a.content_nats, b.content_nats)
    assert_close(a.distance_mass, b.distance_mass)


@pytest.mark.slow
def test_batches_do_not_matter():
  """Batches that are padded to other lengths, and one that isn't full."""
  assert_same(look(False, tokens_per_batch=120), look(False))


@pytest.mark.slow
def test_merged_parts_are_the_whole():
  parts = [look(True, part) for part in (slice(3), slice(3, None))]
  assert_same(AttentionStatistics.merge(parts), look(True))


@pytest.mark.parametrize('decoder_only', [False, True])
def test_sweep_is_what_a_measurement_at_that_temperature_gives(decoder_only):
  """A layer's own, while what it reads comes from layers at τ."""
  site = 'decoder' if decoder_only else 'encoder'
  swept = look(decoder_only).sites[site]
  names = ('max_probability', 'log_max_probability', 'entropy_nats')
  for layer in range(2):
    for i, factor in enumerate(SWEPT):
      moved = np.array(BY_HEAD)
      moved[layer] *= factor
      direct = look(decoder_only, tau=moved.tolist()).sites[site]
      for name in names:
        assert_close(
          swept.sweep_mean(name)[i, layer], direct.mean(name)[layer], name
        )


def test_counts_its_passes():
  gauge = meter(tokens_per_batch=200)
  for _ in range(2):
    gauge.measure(INPUTS, TARGETS, 40)
  assert gauge.num_passes == 2


def test_no_sequences():
  with pytest.raises(ValueError, match='no sequences'):
    meter().measure([], [], 40)


@pytest.mark.parametrize(
  'decoder_only, sites, message',
  [
    (False, ('encodr',), r"'encodr' is no attention site.*encoder, decoder"),
    (True, ('cross',), r"'cross' is no attention site.*it has decoder\."),
    (True, ('encoder',), "'encoder' is no attention site"),
    (False, (), 'No attention site was named'),
  ],
)
def test_sites_that_the_model_does_not_have(decoder_only, sites, message):
  with pytest.raises(ValueError, match=message):
    meter(sites, decoder_only)


def test_sites_come_once_and_in_the_order_of_a_forward_pass():
  assert meter(('cross', 'encoder', 'cross')).sites == ('encoder', 'cross')


def test_attention_that_is_not_finite_is_an_error():
  """A softmax of NaN must not pass for one of rows without keys."""
  network, params = random_model(2, 2)
  params = jax.tree.map(jnp.asarray, params)
  kernel = params['encoder']['layers_1']['attention']['query']
  kernel['kernel'] = kernel['kernel'] * jnp.nan
  meter = AttentionMeter(network, params, ('encoder',))
  with pytest.raises(ValueError, match="encoder's layer 1"):
    meter.measure([[5, 6, 7]] * 2, [[]] * 2, 3)
