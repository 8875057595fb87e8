"""Results of made-up answers, as an evaluation leaves them."""

import itertools
import types

from t5_align import results
from t5_align.tasks.measures import MEASURES

ALIGNMENTS = ('none', 'temperature=0.8')
HEADER = {
  'checkpoint': {'path': '/models/<b>tiny</b>', 'content_hash': 'ab12'},
  'device': {'kind': 'cpu', 'count': 1},
  'dtype': 'float32',
  'training_length': 128,
  'compiled_shapes': 3,
  'lost_characters': {'passkey_128': '<\n', 'passkey_256': ''},
}


def make_task(family, numbers, *measures):
  """A task as results.make_row wants it."""
  parts = itertools.chain(*numbers.items())
  names = [str(part) for part in parts if part not in list(numbers)[:1]]
  return types.SimpleNamespace(
    name='_'.join([family, *names]),
    family=family,
    numbers=numbers,
    size=next(iter(numbers.values()), None),
    unit=next(iter(numbers), None),
    measures=[MEASURES[name] for name in measures],
  )


PASSKEYS = [
  make_task('passkey', {'tokens': n}, 'passkey_match', 'passkey_match_repaired')
  for n in (128, 256, 512)
]
DOCUMENTS = [
  make_task('multi_doc_qa', {'documents': n, 'gold': gold}, 'best_subspan_em')
  for n, gold in ((10, 0), (10, 9), (20, 0), (20, 9), (20, 19))
]
CODE = [make_task('lcc', {}, 'code_similarity', 'code_exact_match', 'ceiling')]
TEXTS = [
  make_task(
    'perplexity_arxiv',
    {'tokens': n},
    'perplexity',
    'bits_per_byte',
    'unknown_share',
  )
  for n in (128, 2048)
]


def answer(task, alignment, i):
  """A sample row: 'none' is worse the longer the input is."""
  size = task.size or 100
  lost = size // 40 if alignment == 'none' else 0
  right = float(i < 20 - lost)
  quantities = {measure.name: right for measure in task.measures}
  gold = task.numbers.get('gold')
  depth = (i % 10 + 0.5) / 10 if gold is None else gold / (size - 1)
  fields = {'depth': depth, 'prediction': '<script>alert(1)</script> [bold]&'}
  if 'code_similarity' in quantities:
    quantities = {'code_similarity': right, 'code_exact_match': 0, 'ceiling': 1}
    fields |= {'depth': None, 'lost_characters': '{'}
  if 'perplexity' in quantities:
    nats = 40.0 + lost + i % 3
    quantities = {'nats': nats, 'bits': nats / 0.6931, 'unknown_tokens': 0}
    quantities |= {'tokens': 10, 'bytes': 30}
    fields = {'depth': None, 'prediction': None, 'cluster': i // 4}
  return {
    'id': f'sample-{i}',
    'target': 'the key',
    'score': right,
    'quantities': quantities,
    'finite': True,
    'prompt_tokens': size - 5,
    'truncated_tokens': 0,
    'lost_characters': '',
    'cluster': None,
  } | fields


def make_results(output_dir, tasks, alignments=ALIGNMENTS, **sample_fields):
  """Write results.json and samples; return header and rows."""
  rows = []
  for task in tasks:
    baseline = []
    for name in alignments:
      samples = [answer(task, name, i) | sample_fields for i in range(20)]
      path = results.samples_path(output_dir, task.name, name)
      path.parent.mkdir(exist_ok=True)
      path.write_text(''.join(results.to_json(s) + '\n' for s in samples))
      rows.append(results.make_row(task, name, samples, baseline))
      baseline = baseline or samples
  results.write_results(output_dir, HEADER, rows)
  return HEADER, rows
