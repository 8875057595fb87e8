"""From a model to temperatures, on random models and the bundled one."""

import flax.traverse_util
import jax
import numpy as np
import pytest

from t5_align import results
from t5_align.alignment.calibrate import calibrate, octaves
from t5_align.alignment.calibration import CalibrationOptions
from t5_align.alignment.objectives import GRANULARITIES, STRATEGIES
from t5_align.calibration_text import GeneratedText
from t5_align.model import load_model
from t5_align.temperature import Law, Temperatures
from tests.alignment.random_model import RandomText, random_model

TRAINING_LENGTH = 16
OBJECTIVES = (
  ('entropy', 'arithmetic'),
  ('maximum_probability', 'arithmetic'),
  ('maximum_probability', 'log'),
)
every_objective = pytest.mark.parametrize('strategy, averaging', OBJECTIVES)
every_granularity = pytest.mark.parametrize('granularity', GRANULARITIES)


def run(
  model=None,
  times=8,
  *,
  text=None,
  training_length=TRAINING_LENGTH,
  lengths=None,
  **options,
):
  """Calibrate a random model of two layers and heads, of one or two texts."""
  network, params = model or random_model(2, 2)
  defaults = dict(num_sequences=2, rows_per_sequence=4, measure_between=False)
  return calibrate(
    network,
    params,
    text or RandomText(),
    training_length,
    lengths or [training_length * times],
    CalibrationOptions(**defaults | options),
  )


def worst(calibration):
  """Largest error of the statistic with what was found, as a share.

  Of the means of the measurements, not of what solutions say.
  """
  objective = calibration.options.objective
  errors = []
  for length, solutions in calibration.solutions.items():
    for solution in solutions:
      assert solution.status in ('solved', 'sharper')
      unknown = solution.unknown
      short = calibration.training.sites[unknown.site]
      target = short.mean(objective.statistic)[..., 0][unknown.heads].mean()
      after = calibration.after[length].sites[unknown.site]
      value = unknown.mean(after.mean(objective.statistic))
      scale = 1 if objective.averaging == 'log' else abs(target)
      errors.append(abs(value - target) / scale)
  return max(errors)


# What is asked for is 0.002; another program rounds differently.
WANTED = 0.0021


@every_granularity
@every_objective
def test_statistic_is_that_of_the_training_length(
  strategy, averaging, granularity
):
  calibration = run(
    strategy=strategy, averaging=averaging, granularity=granularity
  )
  assert worst(calibration) <= WANTED
  assert calibration.num_passes <= 10
  assert (
    len(calibration.solutions[128])
    == {'model': 1, 'layer': 2, 'head': 4}[granularity]
  )
  # They are there to undo dispersion, and to do so takes sharpening.
  for solution in calibration.solutions[128]:
    assert solution.temperature < 0.9
    assert solution.ci95[0] < solution.temperature < solution.ci95[1]


@pytest.mark.slow
@pytest.mark.parametrize('strategy', STRATEGIES)
@pytest.mark.parametrize('times', [2, 8, 32])
@pytest.mark.parametrize('size', [(2, 2), (4, 4), (8, 8)], ids=str)
def test_random_models_of_three_sizes(size, times, strategy):
  for granularity in GRANULARITIES:
    calibration = run(
      random_model(*size), times, strategy=strategy, granularity=granularity
    )
    assert worst(calibration) <= WANTED
    assert calibration.num_passes <= 12


@pytest.mark.slow
@pytest.mark.parametrize('granularity, spread', [('model', 1.0), ('head', 3.0)])
def test_deep_models(granularity, spread):
  """One temperature for 12 layers moves what all of them read."""
  model = random_model(12, 2, spread=spread)
  calibration = run(model, granularity=granularity)
  assert worst(calibration) <= WANTED
  assert calibration.num_passes <= 14


@pytest.mark.slow
@pytest.mark.parametrize('strategy', STRATEGIES)
def test_bundled_model(strategy):
  model = load_model('bundled')
  for granularity in GRANULARITIES:
    calibration = run(
      (model.network, model.params),
      4,
      text=GeneratedText(model.vocabulary),
      training_length=model.training_length,
      strategy=strategy,
      granularity=granularity,
      num_sequences=2,
    )
    assert worst(calibration) <= WANTED


@pytest.mark.slow
@every_granularity
def test_sites_together(granularity):
  calibration = run(sites=('cross', 'encoder'), granularity=granularity)
  assert worst(calibration) <= WANTED
  assert calibration.temperatures.decoder == 1.0
  assert np.all(np.asarray(calibration.temperatures.cross) < 0.9)


@pytest.mark.slow
@every_granularity
@pytest.mark.parametrize('form', [None, 'constant'])
def test_decoder_only(form, granularity):
  calibration = run(
    random_model(2, 2, decoder_only=True), form=form, granularity=granularity
  )
  assert calibration.options.sites == ('decoder',)
  assert worst(calibration) <= WANTED
  assert calibration.num_passes <= 14
  found = calibration.temperatures.decoder
  if form == 'constant':
    assert not isinstance(found, Law)
  else:
    # It follows the length unless told otherwise: two points an octave.
    assert len(found.coefficients) == 2 * (1 + 2 * 3)
    assert found.coefficients[:2] == (TRAINING_LENGTH, 1.0)


@pytest.mark.slow
def test_one_temperature_curve_for_several_lengths():
  calibration = run(
    form='by_length', lengths=[128, 32, 128], granularity='head'
  )
  assert calibration.lengths == (32, 128)
  assert worst(calibration) <= WANTED
  knots = calibration.temperatures.encoder.coefficients
  assert knots[:2] == (16, 1.0) and knots[2::2] == (32, 128)
  first, second = (np.array(tau) for tau in knots[3::2])
  assert np.all(second < first)


def test_a_constant_is_found_at_the_longest():
  calibration = run(lengths=[32, 128])
  assert calibration.lengths == (128,)
  assert isinstance(calibration.temperatures.encoder, float)


def test_temperatures_have_as_many_numbers_as_they_need():
  by_layer = run(granularity='layer').temperatures.encoder
  by_head = run(granularity='head').temperatures.encoder
  assert np.shape(by_layer) == (2,) and np.shape(by_head) == (2, 2)


class Twice(RandomText):
  """Every sequence of a text, two times."""

  def draw(self, length, count, *, within=None):
    drawn = super().draw(length, count // 2, within=within)
    drawn.inputs, drawn.targets = drawn.inputs * 2, drawn.targets * 2
    return drawn


@pytest.mark.slow
def test_duplicated_sequences_change_nothing():
  once = run(num_sequences=2, granularity='head')
  again = run(text=Twice(), num_sequences=4, granularity='head')
  np.testing.assert_allclose(
    again.temperatures.encoder, once.temperatures.encoder, rtol=1e-5
  )


def test_equal_heads_have_the_temperature_of_their_layer():
  network, params = random_model(2, 2)
  flat = flax.traverse_util.flatten_dict(params, sep='/')
  config = network.config
  for path, value in flat.items():
    if path.endswith(('query/kernel', 'key/kernel', 'value/kernel')):
      # [D, N · H]: the first head for each.
      heads = value.reshape(config.emb_dim, config.num_heads, config.head_dim)
      flat[path] = heads[:, :1].repeat(config.num_heads, 1).reshape(value.shape)
    elif path.endswith('rel_embedding'):
      flat[path] = value[:1].repeat(config.num_heads, 0)
  model = network, flax.traverse_util.unflatten_dict(flat, sep='/')
  by_layer = run(model, granularity='layer').temperatures.encoder
  by_head = run(model, granularity='head').temperatures.encoder
  np.testing.assert_allclose(
    np.broadcast_to(np.array(by_head).T, (2, 2)).T,
    np.repeat(np.array(by_layer)[:, None], 2, 1),
    rtol=1e-4,
  )


def uniform_model():
  """Its first layer looks at everything alike, but for position."""
  network, params = random_model(2, 2)
  return network, jax.tree_util.tree_map_with_path(
    lambda path, x: (
      x * 0
      if 'rel_embedding' in str(path)
      or ('layers_0' in str(path) and 'query' in str(path))
      else x
    ),
    params,
  )


def test_uniform_attention_is_left_alone():
  calibration = run(uniform_model(), granularity='head')
  status = {
    (s.unknown.layer, s.unknown.head): s.status
    for s in calibration.solutions[128]
  }
  assert status[0, 0] == status[0, 1] == 'saturated'
  assert status[1, 0] == status[1, 1] == 'solved'
  tau = np.array(calibration.temperatures.encoder)
  assert np.all(tau[0] == 1) and np.all(tau[1] < 1)
  (warning,) = [
    w for w in calibration.warnings if 'No temperature reaches' in w
  ]
  assert 'encoder layer 0 head 1 at 128 tokens' in warning
  assert np.all(calibration.kinds['encoder'][0] == 'averaging')


def test_selective_leaves_heads_alone_that_do_not_disperse_by_content():
  calibration = run(uniform_model(), granularity='model', selective=True)
  kinds = calibration.kinds['encoder']
  tau = np.broadcast_to(
    np.array(calibration.temperatures.encoder).reshape(2, -1), (2, 2)
  )
  np.testing.assert_array_equal(tau < 1, kinds == 'content')
  assert 0 < (kinds == 'content').sum() < 4


def test_selective_where_no_head_disperses_by_content():
  network, params = random_model(2, 2)
  params = jax.tree_util.tree_map_with_path(
    lambda path, x: x * 0 if 'query' in str(path) else x, params
  )
  calibration = run((network, params), selective=True)
  assert calibration.temperatures == Temperatures()
  assert calibration.solutions == {128: []}
  assert any('leaves all of them alone' in w for w in calibration.warnings)


@pytest.mark.slow
@pytest.mark.parametrize('method', ['calibrated', 'closed_form'])
def test_one_sequence_has_no_interval_and_a_warning(method):
  calibration = run(text=RandomText(most=1), method=method)
  (solution,) = calibration.solutions[128]
  assert solution.ci95 is None and solution.temperature < 1
  assert any('1 of the 2 sequences of 128' in w for w in calibration.warnings)
  results.to_json(calibration.record())


@every_objective
def test_closed_form(strategy, averaging):
  calibration = run(
    method='closed_form',
    strategy=strategy,
    averaging=averaging,
    granularity='head',
  )
  # Three measurements: that is what it is for.
  assert calibration.num_passes == 3
  for solution in calibration.solutions[128]:
    target, before = solution.unknown.target, solution.before
    assert abs(solution.after - target) < abs(before - target)


@pytest.mark.parametrize(
  'method', [pytest.param('calibrated', marks=pytest.mark.slow), 'closed_form']
)
def test_decoder_beside_an_encoder_sees_no_more_keys(method):
  """Inputs get longer, not what it reads itself."""
  calibration = run(sites=('decoder',), method=method)
  assert calibration.temperatures.decoder == pytest.approx(1, abs=0.2)


def test_curve_of_a_decoder_beside_an_encoder():
  with pytest.raises(ValueError, match="sees no more keys.*form='constant'"):
    run(sites=('encoder', 'decoder'), form='by_length')


@pytest.mark.slow
@pytest.mark.parametrize(
  'sites, lengths, options',
  [
    (('encoder', 'cross'), [128], dict(form='constant')),
    (('encoder',), [32, 128], dict(form='by_length', measure_between=True)),
  ],
)
def test_record_and_measurements(sites, lengths, options):
  calibration = run(lengths=lengths, sites=sites, **options)
  record = calibration.record()
  results.to_json(record)
  assert record['lengths'] == lengths
  assert len(record['solutions']) == len(sites) * len(lengths)
  assert len(record['heads']) == 4 * len(sites)
  for solution in record['solutions']:
    assert solution['keys'] == solution['length']
    assert solution['ci95'][0] < solution['temperature'] < solution['ci95'][1]
  measured = calibration.measurements()
  results.to_json(measured)
  longer = (32, 64, 128) if 'measure_between' in options else lengths
  expected = [(site, 16, 'none') for site in sites]
  for length in longer:
    for name in ('none', 'entropy'):
      expected += [(site, length, name) for site in sites]
  assert [
    (m['site'], m['length'], m['alignment']) for m in measured
  ] == expected


def test_is_deterministic():
  first, again = (run(granularity='head') for _ in range(2))
  assert first.temperatures == again.temperatures


class ShortText(RandomText):
  """Prompts that miss the length that was asked for by some tokens."""

  def draw(self, length, count, *, within=None):
    return super().draw(length - 3, count, within=within)


@pytest.mark.parametrize('method', ['calibrated', 'closed_form'])
def test_prompts_no_longer_than_in_training_are_left_alone(method):
  """17 tokens are asked for, and 14 come: fewer than the 16 of training."""
  calibration = run(
    text=ShortText(),
    lengths=[17, 32],
    form='by_length',
    granularity='layer',
    method=method,
  )
  law = calibration.temperatures.encoder
  assert law.coefficients[::2] == (16.0, 29.0)
  short, long = calibration.solutions[17], calibration.solutions[32]
  assert [s.status for s in (*short, *long)] == 2 * ['left_alone'] + (
    2 * ['solved']
  )
  for solution in short:
    assert solution.temperature == 1 and solution.ci95 is None
    # Measured twice, by programs that add in other orders.
    assert solution.after == pytest.approx(solution.before, rel=1e-6)
  (warning,) = [w for w in calibration.warnings if 'see more keys' in w]
  assert 'encoder layer 1 at 17 tokens.' in warning


class EvenText(RandomText):
  """Prompts of 24 tokens, where more were asked for."""

  def draw(self, length, count, *, within=None):
    return super().draw(min(length, 24), count, within=within)


def test_prompts_no_longer_than_at_a_shorter_length_have_its_temperature():
  calibration = run(
    text=EvenText(), lengths=[24, 32], form='by_length', granularity='layer'
  )
  law = calibration.temperatures.encoder
  assert law.coefficients[::2] == (16.0, 24.0)
  for found, left in zip(calibration.solutions[24], calibration.solutions[32]):
    assert (found.status, left.status) == ('solved', 'left_alone')
    assert left.temperature == pytest.approx(found.temperature, rel=1e-9)
    assert left.temperature < 1
    assert left.after == pytest.approx(found.after)


def test_octaves():
  assert octaves(16, 128) == [32, 64, 128]
  assert octaves(16, 100) == [32, 64, 100]
  assert octaves(16, 20) == [20]
  assert octaves(16, 16) == []
  assert octaves(16, 256, ratio=4) == [64, 256]


@pytest.mark.parametrize('lengths', [[16], [8, 128]])
def test_target_that_is_not_longer(lengths):
  with pytest.raises(
    ValueError, match='not longer than the training length, 16: .* nothing'
  ):
    run(lengths=lengths)


def test_other_lengths_that_are_none():
  network, params = random_model(2, 2)
  with pytest.raises(ValueError, match='No target length'):
    calibrate(network, params, RandomText(), 16, [])
  with pytest.raises(ValueError, match='training length is 1 tokens'):
    run(training_length=1, lengths=[4])


def test_site_that_the_model_does_not_have():
  with pytest.raises(ValueError, match="'cross' is no attention site of this"):
    run(random_model(2, 2, decoder_only=True), sites=('cross',))


def test_text_that_is_too_short():
  """The error is the text's own, and comes before anything is measured."""
  model = load_model('bundled')
  with pytest.raises(ValueError, match='Give more text, or ask for a shorter'):
    model.align(2048, ['A short text.'])


def test_text_without_sequences():
  with pytest.raises(ValueError, match='no sequences to measure'):
    run(text=RandomText(most=0))
