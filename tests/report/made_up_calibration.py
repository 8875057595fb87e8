"""Made-up files of a calibration, plausible enough to look at.

Heads are those of the random energy model: logits of spread σ, so that
H = ln n - σ²/2τ² and P_max = exp(σ√(2 ln n)/τ - σ²/2τ²)/n, kept in bounds.
"""

import json
import math

import numpy as np


def make_calibration(
  output_dir,
  *,
  sites=('encoder',),
  num_layers=2,
  num_heads=4,
  training_length=128,
  lengths=(1024,),
  strategy='entropy',
  granularity='model',
  with_sample=True,
  with_rules=True,
  key_groups=1,
  statistics_fields=None,
  calibration_fields=None,
):
  """Write statistics.json and temperatures.json; return both documents."""
  draw = np.random.default_rng(0)
  kinds = _kinds(num_layers, num_heads)
  measurements, solutions, heads, rules = [], [], [], []
  for site in sites:
    sigma = _sigma(draw, num_layers, num_heads)
    tau = np.ones_like(sigma)
    for length in lengths:
      tau = _temperatures(sigma, training_length, length, granularity)
      solutions += _solutions(
        site, sigma, tau, training_length, length, strategy, granularity
      )
    causal = site == 'decoder' and key_groups > 1
    for length, alignment in [
      (training_length, 'none'),
      *((n, 'none') for n in lengths),
      *((n, strategy) for n in lengths),
    ]:
      groups = [length]
      if causal and length > training_length:
        groups = np.geomspace(training_length / 2, length, key_groups)
      measurements += [
        _measurement(
          site,
          length,
          float(keys),
          alignment,
          sigma / (tau if alignment != 'none' else 1),
          kinds,
          with_sample,
        )
        for keys in groups
      ]
    if with_rules:
      rules += _rules(
        site, strategy, training_length, max(lengths), float(sigma.mean())
      )
    heads += [
      {'site': site, 'layer': i, 'head': n, 'kind': str(kinds[i, n])}
      for i, n in np.ndindex(kinds.shape)
    ]
  statistics = {
    'header': {
      'package': 't5_align 0.1.0',
      'device': {'kind': 'cpu', 'count': 1},
      'dtype': 'float32',
      'checkpoint': {'path': '/models/<b>tiny</b>', 'content_hash': 'ab12'},
      'training_length': training_length,
    },
    'measurements': measurements,
    'rules': rules,
  } | (statistics_fields or {})
  temperatures = {
    'version': 1,
    'temperatures': {site: 0.7 for site in sites},
    'calibration': {
      'strategy': strategy,
      'method': 'calibrated',
      'granularity': granularity,
      'sites': list(sites),
      'averaging': 'arithmetic',
      'training_length': training_length,
      'lengths': list(lengths),
      'form': 'constant',
      'selective': False,
      'clamp': False,
      'tolerance': 0.002,
      'forward_passes': 9,
      'data': {
        'source': 'generated development text',
        'hash': 'cd34',
        'sequences': {str(training_length): 64, str(max(lengths)): 8},
      },
      'solutions': solutions,
      'heads': heads,
      'warnings': ['The text gives 2 of the 8 sequences of 1,024 tokens.'],
    }
    | (calibration_fields or {}),
  }
  write(output_dir, statistics, temperatures)
  return statistics, temperatures


def write(output_dir, statistics, temperatures):
  (output_dir / 'statistics.json').write_text(json.dumps(statistics))
  (output_dir / 'temperatures.json').write_text(json.dumps(temperatures))


def _kinds(num_layers, num_heads):
  names = ('content', 'content', 'position', 'content', 'averaging', 'steady')
  index = np.arange(num_layers * num_heads) * 7 % 11 % len(names)
  return np.array(names)[index].reshape(num_layers, num_heads)


def _sigma(draw, num_layers, num_heads):
  """Later layers look more closely; heads differ."""
  depth = np.linspace(0.8, 2.3, num_layers)[:, None]
  return depth * np.exp(0.25 * draw.standard_normal((num_layers, num_heads)))


def _entropy(sigma, keys):
  return np.log(keys) * np.exp(-(sigma**2) / (2 * np.log(keys)))


def _max_probability(sigma, keys):
  peak = sigma * math.sqrt(2 * math.log(keys)) - sigma**2 / 2 - math.log(keys)
  return 1 / (1 + np.exp(-peak))


def _statistic(strategy, sigma, keys):
  function = _entropy if strategy == 'entropy' else _max_probability
  return function(sigma, keys)


def _temperatures(sigma, training_length, length, granularity):
  ratio = 2 * math.log(length / training_length)
  tau = sigma / np.sqrt(sigma**2 + ratio / 2)
  if granularity == 'model':
    return np.full_like(tau, tau.mean())
  if granularity == 'layer':
    return np.broadcast_to(tau.mean(1, keepdims=True), tau.shape)
  return tau


def _solutions(site, sigma, tau, training_length, length, strategy, each):
  places = {
    'model': [(None, None)],
    'layer': [(i, None) for i in range(len(sigma))],
    'head': list(np.ndindex(sigma.shape)),
  }[each]
  found = []
  for number, (layer, head) in enumerate(places):
    own = np.index_exp[
      slice(None) if layer is None else layer,
      slice(None) if head is None else head,
    ]
    value = float(np.mean(tau[own]))
    status = ('sharper', 'saturated', 'clamped')[number % 3]
    is_odd = each == 'head' and number % 13 == 5
    found.append(
      {
        'site': site,
        'layer': layer if layer is None else int(layer),
        'head': head if head is None else int(head),
        'length': length,
        'keys': float(length),
        'target': float(
          _statistic(strategy, sigma[own], training_length).mean()
        ),
        'before': float(_statistic(strategy, sigma[own], length).mean()),
        'after': float(
          _statistic(strategy, sigma[own] / tau[own], length).mean()
        ),
        'temperature': 1.2 if is_odd else value,
        'ci95': None if is_odd else [value - 0.02, value + 0.03],
        'status': status if is_odd else 'solved',
      }
    )
  return found


def _measurement(site, length, keys, alignment, sigma, kinds, with_sample):
  statistics = {
    'max_probability': _max_probability(sigma, keys),
    'log_max_probability': np.log(_max_probability(sigma, keys)),
    'entropy_nats': _entropy(sigma, keys),
    'logit_mean': np.zeros_like(sigma),
    'logit_std': sigma,
  }
  return {
    'site': site,
    'length': length,
    'keys': keys,
    'alignment': alignment,
    'sequences': 8,
    'rows': 8 * length,
    **{name: value.tolist() for name, value in statistics.items()},
    'stderr': {n: (0.01 * v).tolist() for n, v in statistics.items()},
    'sample': _sample(site, length, sigma, kinds) if with_sample else None,
  }


def _sample(site, length, sigma, kinds):
  distances = [2**i // 2 for i in range((length - 1).bit_length() + 1)]
  middle = np.array([1.5 * d for d in distances])[:, None, None]
  width = np.diff([*distances, length])[:, None, None]
  reach = 10 * np.exp(2.3 - sigma)
  mass = width * (np.exp(-middle / reach) + 1 / (40 * sigma**4) / reach)
  is_cross = site == 'cross'
  return {
    'rows_per_sequence': 16,
    'logit_skewness': np.zeros_like(sigma).tolist(),
    'logit_excess_kurtosis': np.zeros_like(sigma).tolist(),
    'percentiles': [5, 25, 50, 75, 95],
    'max_probability_percentiles': np.zeros((5, *sigma.shape)).tolist(),
    'entropy_percentiles': np.zeros((5, *sigma.shape)).tolist(),
    'distances': distances,
    'bias_overlap': None
    if is_cross
    else np.where(kinds == 'position', 0.9, 0.2).tolist(),
    'distance_mass': None if is_cross else (mass / mass.sum(0)).tolist(),
  }


def _rules(site, strategy, training_length, longest, sigma):
  keys = np.geomspace(training_length, 4 * longest, 25)
  longer = np.maximum(keys, training_length)
  ratio = np.log(longer / training_length)
  curves = {
    'none': np.ones_like(keys),
    'log_n': math.log(training_length) / np.log(longer),
    'ssmax': math.log(training_length) / np.log(keys),
    'yarn': (1 + 0.1 * ratio) ** -2,
    'infoscale': np.sqrt(
      (1 - training_length ** (-2 / 64)) / (1 - longer ** (-2 / 64))
    ),
    'entropy_closed_form': sigma / np.sqrt(sigma**2 + 2 * ratio),
    'maximum_probability_closed_form': sigma
    / (
      sigma
      + np.sqrt(2 * np.log(longer))
      - math.sqrt(2 * math.log(training_length))
    ),
  }
  curves[strategy] = np.full_like(keys, 0.7)
  rules = [
    {
      'rule': name,
      'site': site,
      'points': [[float(n), float(t)] for n, t in zip(keys, tau)],
    }
    for name, tau in curves.items()
  ]
  oracle = {'rule': 'oracle', 'site': site, 'points': [[float(longest), 0.75]]}
  return [*rules, oracle]
