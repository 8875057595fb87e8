"""What an evaluation costs beside the forward passes.

Samples a second of a whole evaluation, from drawing the first sample to the
last row on disk, against the same batches given to the model with their tokens
made beforehand, both compiled, alternating. Then the seconds to judge 10,000
samples of each family (metrics, intervals, paired differences), and how fast
samples of each generated family are made ready.

    python benchmarks/evaluation.py --output benchmarks/results/evaluation.json
    python benchmarks/evaluation.py --table \
        --output benchmarks/results/evaluation.json    # Markdown of it
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import tempfile
import time

import t5_align
from t5_align import (
  aligning,
  answering,
  evaluation,
  preparation,
  prompts,
  provenance,
  results,
  vocabulary,
)
from t5_align.inference import Generated, Scored
from t5_align.tasks import generators
from t5_align.tasks.generators import filler
from t5_align.tasks.generators import task as task_lib

ALIGNMENTS = ('none', '0.8')
NUM_JUDGED = 10_000


class Workload:
  """Some tasks with a model of one batch size, in two ways."""

  def __init__(self, options, names, batch_size):
    self.model = t5_align.load_model(
      options.model, dtype=options.dtype, batch_size=batch_size
    )
    self.settings = prompts.Settings(batch_size=batch_size, limit=options.limit)
    self.tasks = [generators.get_task(name) for name in names.split(',')]
    self.alignments = [
      aligning.parse_alignment(name, self.model) for name in ALIGNMENTS
    ]
    start = time.perf_counter()
    prepared = [prompts.prepare(self.tasks[0], self.model, self.settings)]
    self.first_prepared = time.perf_counter() - start
    prepared += [
      prompts.prepare(task, self.model, self.settings)
      for task in self.tasks[1:]
    ]
    self.all_prepared = time.perf_counter() - start
    self.calls = [
      call
      for one in prepared
      for alignment in self.alignments
      for call in self._calls(one, alignment.temperatures)
    ]
    self.num_samples = len(ALIGNMENTS) * sum(len(p.prompts) for p in prepared)

  def _calls(self, prepared, temperatures):
    """Yield what the model is asked, a batch at a time."""
    inference, size = self.model.inference, self.settings.batch_size
    ordered = sorted(prepared.prompts, key=lambda prompt: len(prompt.tokens))
    for start in range(0, len(ordered), size):
      batch = ordered[start : start + size]
      inputs = [prompt.tokens for prompt in batch]
      if prepared.task.scored:
        targets = [prompt.target_tokens for prompt in batch]
        yield inference.score, (inputs, targets, temperatures), {}
      else:
        longest = prepared.fingerprint['max_new_tokens']
        fields = {'max_new_tokens': longest, 'temperatures': temperatures}
        yield inference.generate, (inputs,), fields

  def bare(self):
    """Return the seconds of the forward passes alone."""
    start = time.perf_counter()
    for function, arguments, fields in self.calls:
      function(*arguments, **fields)
    return time.perf_counter() - start

  def whole(self):
    """Return the seconds of an evaluation into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
      start = time.perf_counter()
      tasks = preparation.Preparation(self.tasks, self.model, self.settings)
      evaluation.evaluate(
        self.model, tasks, self.alignments, folder, self.settings
      )
      return time.perf_counter() - start


def measure_evaluation(options, names, batch_size):
  """Return samples a second of both ways, and their ratio in each round."""
  workload = Workload(options, names, batch_size)
  ways = {'bare': workload.bare, 'whole': workload.whole}
  seconds = {name: [] for name in ways}
  for way in ways.values():
    way()
  for round_ in range(options.rounds):
    # Whoever comes second finds warm caches, or a hot processor.
    for name in list(ways)[:: 1 if round_ % 2 else -1]:
      seconds[name].append(ways[name]())
  ratios = [b / w for b, w in zip(seconds['bare'], seconds['whole'])]
  return {
    'tasks': names,
    'batch_size': batch_size,
    'samples': workload.num_samples,
    'seconds_to_prepare_the_first_task': workload.first_prepared,
    'seconds_to_prepare_all': workload.all_prepared,
    **{
      f'{name}_samples_per_second': workload.num_samples / statistics.median(s)
      for name, s in seconds.items()
    },
    'share_of_bare': statistics.median(ratios),
    'share_of_bare_by_fastest': min(seconds['bare']) / min(seconds['whole']),
    'seconds': seconds,
  }


def measure_judging(model, family):
  """Return the seconds from answers to a row with intervals and difference."""
  task = generators.get_task(task_lib.get_family(family).typical[0])
  rng = random.Random(0)
  answers = ('48213', '77120', '30069')
  encode = model.vocabulary.encode
  right, wrong = encode(answers[0]), encode(' '.join(filler.NOUNS))
  batch = [
    prompts.Prompt(
      task_lib.Sample(str(i), '', answers[0], answers, 0.5, _cluster(task, i)),
      [7] * 1024,
      right,
      1024,
      0,
      answers,
      '',
    )
    for i in range(NUM_JUDGED)
  ]

  def outputs():
    for _ in batch:
      if task.scored:
        yield Scored(-rng.random() * len(right), len(right), True)
      else:
        written = (right if rng.random() < 0.5 else []) + wrong
        yield Generated(written[: task.max_new_tokens], -1.0, True)

  sides = [answering.Answers(batch, list(outputs()), 0.1) for _ in range(2)]
  start = time.perf_counter()
  samples = [answering.judge(model, task, answers) for answers in sides]
  judged = time.perf_counter()
  row = results.make_row(task, 'other', samples[0], samples[1])
  end = time.perf_counter()
  return {
    'family': family,
    'metric': row['metric'],
    'ci_method': row['ci_method'],
    # The baseline's samples are judged for its own row.
    'seconds': (judged - start) / 2 + end - judged,
    'seconds_of_the_row_alone': end - judged,
  }


def _cluster(task, i):
  """Texts to score have eight samples each."""
  return f'text {i // 8}' if task.scored else None


def measure_preparation(name, text, family, size, num_tokens):
  """Return tokens a second of prompts made ready, a first one left out."""
  task = generators.get_task(task_lib.name_at(family, size))
  limit = max(num_tokens // size, 4)

  def prepare(seed, limit):
    settings = prompts.Settings(limit=limit, seed=seed)
    return prompts.prepare(task, _Reader(text), settings).prompts

  prepare(1, 1)
  start = time.perf_counter()
  made = prepare(0, limit)
  seconds = time.perf_counter() - start
  return {
    'vocabulary': name,
    'family': family,
    'tokens_of_a_prompt': size,
    'samples_per_second': limit / seconds,
    'tokens_per_second': sum(len(p.tokens) for p in made) / seconds,
  }


class _Reader:
  """As much of a model as preparing asks for."""

  class checkpoint:
    decoder_only = False

  def __init__(self, text):
    self.vocabulary = text


def families():
  """Return the names of all families, and of those generated by length."""
  every = task_lib.list_families()
  drawn = [f for f in every if task_lib.get_family(f).draw is not None]
  return every, drawn


def markdown(document):
  """Return the tables of a results file."""
  lines = [
    '| tasks | batch | bare forward passes | whole evaluation | share |',
    '|---|---|---|---|---|',
  ]
  for row in document['evaluation']:
    bare, whole = (
      f'{row[f"{way}_samples_per_second"]:.1f} samples/s'
      for way in ('bare', 'whole')
    )
    share = f'{100 * row["share_of_bare"]:.0f} %'
    names = ', '.join(f'`{name}`' for name in row['tasks'].split(','))
    lines.append(
      f'| {names} | {row["batch_size"]} | {bare} | {whole} | {share} |'
    )
  lines += [
    '',
    '| made ready | 1,024 tokens | 16,384 tokens |',
    '|---|---|---|',
  ]
  rates = {}
  for row in document['preparation']:
    rates.setdefault((row['vocabulary'], row['family']), []).append(
      f'{row["tokens_per_second"] / 1000:,.0f},000 tokens/s'
    )
  for (name, family), cells in rates.items():
    lines.append(f'| `{family}`, {name} | ' + ' | '.join(cells) + ' |')
  seconds = sorted(
    (row['seconds'], row['family']) for row in document['judging']
  )
  (least, fast), (most, slow) = seconds[0], seconds[-1]
  lines += [
    '',
    f'{NUM_JUDGED:,} samples are judged, with intervals and differences, in'
    f' {least:.1f} s (`{fast}`) to {most:.1f} s (`{slow}`).',
  ]
  return '\n'.join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='bundled')
  parser.add_argument('--dtype', default=None)
  parser.add_argument(
    '--short', default='passkey_128,line_retrieval_tokens_128'
  )
  parser.add_argument(
    '--generated',
    default='passkey_512,line_retrieval_tokens_512,line_retrieval_tokens_1024',
  )
  parser.add_argument(
    '--scored', default='perplexity_files_512,perplexity_files_1024'
  )
  parser.add_argument('--batch_sizes', default='8,32')
  parser.add_argument('--limit', type=int, default=96)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--vocabulary', help="another model's, to prepare with")
  parser.add_argument('--output', required=True)
  parser.add_argument('--table', action='store_true', help='show --output')
  options = parser.parse_args()
  path = pathlib.Path(options.output)
  if options.table:
    print(markdown(json.loads(path.read_text())))
    return
  model = t5_align.load_model(options.model, dtype=options.dtype)
  shown = vars(options) | {'output': None}
  texts = {'bundled vocabulary': model.vocabulary}
  if options.vocabulary:
    texts['T5 vocabulary'] = vocabulary.load_vocabulary(options.vocabulary)
    shown['vocabulary'] = texts['T5 vocabulary'].hash
  every, drawn = families()
  document = {
    'header': provenance.describe(model)
    | {'cpu_cores': len(os.sched_getaffinity(0)), 'options': shown},
    'evaluation': [],
    'judging': [],
    'preparation': [],
  }

  def add(part, row):
    document[part].append(row)
    print(json.dumps(row), flush=True)
    path.write_text(json.dumps(document, indent=1) + '\n')

  for name, text in texts.items():
    for family in drawn:
      for size in (1_024, 16_384):
        row = measure_preparation(name, text, family, size, num_tokens=2**17)
        add('preparation', row)
  for family in every:
    add('judging', measure_judging(model, family))
  for names in (options.short, options.generated, options.scored):
    for batch_size in map(int, options.batch_sizes.split(',')):
      add('evaluation', measure_evaluation(options, names, batch_size))


if __name__ == '__main__':
  main()
