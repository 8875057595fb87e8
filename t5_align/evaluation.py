"""From tasks to rows: batches, answers, scores, files.

Every task is asked under every alignment in one process. Temperatures are
traced, so a shape compiles once however many alignments there are:

    prompt -> batch -> generate(temperatures) -> text -> score -> row

A batch's rows are on disk before the next batch starts. A rerun takes up where
the last one stopped, and refuses where it would mix two configurations.

Synopsis:

    settings = Settings(batch_size=8, limit=50)
    alignments = [parse_alignment(a, model) for a in ('none', 0.8)]
    header, rows = evaluate(model, tasks, alignments, 'out', settings)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import os
import pathlib
import time
from typing import Any

from rich import console as rich_console

from t5_align import progress, provenance, results
from t5_align import prompts as prompts_lib
from t5_align.aligning import Alignment
from t5_align.prompts import Prepared, Prompt, Settings
from t5_align.tasks.generators import task as task_lib


@dataclasses.dataclass(frozen=True)
class _Step:
  """One task under one alignment, and what is left to do of it."""

  prepared: Prepared
  alignment: Alignment
  path: pathlib.Path
  # The prompts of each batch, and the ids among them that are not on disk.
  batches: list[tuple[list[Prompt], set[str]]]

  @property
  def label(self) -> str:
    return f'{self.prepared.task.name} {self.alignment.name}'


def evaluate(
  model: Any,
  tasks: Sequence[task_lib.TaskDefinition | Prepared],
  alignments: Sequence[Alignment],
  output_dir: str | os.PathLike,
  settings: Settings,
  console: rich_console.Console | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Evaluate every task under every alignment; write and return the results.

  Args:
    model: a Model.
    tasks: what to ask; a task that is prepared already is not drawn again.
    alignments: the temperatures to ask under.
    output_dir: gets results.json and samples/; may hold an earlier run of the
      same configuration, which is continued.
    settings: which samples, and how they are answered.
    console: where progress is shown; None for silence.

  Returns:
    The header and the rows of results.json.

  Raises:
    PromptTooLongError: a prompt over the limit.
    DataError: published samples that cannot be read.
    ResultsError: an output directory that this run cannot continue.
  """
  output_dir = pathlib.Path(output_dir)
  # Asked for twice, they would write the same samples twice.
  prepared = prepare(tasks, model, settings)
  alignments = list({a.name: a for a in alignments}.values())
  for alignment in alignments:
    alignment.temperatures.check(model.config)
  header = _make_header(model, prepared, alignments, settings)
  header, rows = _continue_from(output_dir, header)
  # The others are compared with 'none', so it comes first.
  ordered = sorted(alignments, key=lambda a: a.name != results.BASELINE)
  (output_dir / 'samples').mkdir(parents=True, exist_ok=True)
  steps = [
    _plan(group, alignment, output_dir, settings.batch_size)
    for group in prepared
    for alignment in ordered
  ]
  results.write_results(output_dir, header, rows)
  with _display(steps, console) as advance:
    for step in steps:
      for batch, missing in step.batches:
        answers = _answer(model, step, batch)
        _append(step.path, [row for row in answers if row['id'] in missing])
        advance(_num_tokens(batch), len(batch), step.label)
      rows = _with_row(rows, _make_row(output_dir, step))
      # A finished run that is asked for again compiles nothing.
      compiled = model.inference.num_compiled
      header['compiled_shapes'] = compiled or header['compiled_shapes']
      results.write_results(output_dir, header, rows)
  return header, rows


def prepare(
  tasks: Sequence[task_lib.TaskDefinition | Prepared],
  model: Any,
  settings: Settings,
) -> list[Prepared]:
  """Return the tasks with their prompts, each task once."""
  prepared = {}
  for task in tasks:
    if isinstance(task, Prepared):
      prepared[task.task.name] = task
    elif task.name not in prepared:
      prepared[task.name] = prompts_lib.prepare(task, model, settings)
  return list(prepared.values())


def _make_header(
  model: Any,
  prepared: Sequence[Prepared],
  alignments: Sequence[Alignment],
  settings: Settings,
) -> dict[str, Any]:
  header = provenance.make_header(
    model,
    {group.task.name: group.fingerprint for group in prepared},
    {group.task.name: group.lost_characters for group in prepared},
    {a.name: a.temperatures.to_json() for a in alignments},
    dataclasses.asdict(settings),
  )
  return header | {'compiled_shapes': 0}


def _continue_from(
  output_dir: pathlib.Path, header: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Return header and rows to start from: an earlier run's, where one was."""
  if (output_dir / 'results.json').exists():
    earlier, rows = results.read_results(output_dir)
    return provenance.merge_headers(earlier, header), rows
  if any((output_dir / 'samples').glob('*.jsonl')):
    raise results.ResultsError(
      f'{output_dir} has samples but no results.json, so nothing says what'
      ' made them; choose a new output directory.'
    )
  return header, []


def _plan(
  prepared: Prepared,
  alignment: Alignment,
  output_dir: pathlib.Path,
  batch_size: int,
) -> _Step:
  """Return the batches still to be answered, short prompts first.

  Batches are the same whether a run was interrupted or not, so that answers
  never depend on it: one written in part is generated whole once more.
  """
  path = results.samples_path(output_dir, prepared.task.name, alignment.name)
  done = {sample['id'] for sample in _repair(path)}
  ordered = sorted(prepared.prompts, key=lambda prompt: len(prompt.tokens))
  batches = []
  for start in range(0, len(ordered), batch_size):
    batch = ordered[start : start + batch_size]
    missing = {prompt.sample.id for prompt in batch} - done
    if missing:
      batches.append((batch, missing))
  return _Step(prepared, alignment, path, batches)


def _repair(path: pathlib.Path) -> list[dict[str, Any]]:
  """Return the samples of a file, and drop a torn last line from it."""
  if not path.exists():
    return []
  samples = results.read_samples(path)
  with open(path, 'r+b') as file:
    file.truncate(file.read().rfind(b'\n') + 1)
  return samples


def _display(
  steps: Sequence[_Step], console: rich_console.Console | None
) -> contextlib.AbstractContextManager[progress.Advance]:
  """Return a context that gives the function to report work to."""
  if console is None:
    return contextlib.nullcontext(progress.silent)
  batches = [batch for step in steps for batch, _ in step.batches]
  return progress.progress_display(
    sum(_num_tokens(batch) for batch in batches),
    sum(len(batch) for batch in batches),
    console,
  )


def _num_tokens(batch: Sequence[Prompt]) -> int:
  return sum(len(prompt.tokens) for prompt in batch)


def _answer(
  model: Any, step: _Step, batch: Sequence[Prompt]
) -> list[dict[str, Any]]:
  """Generate and score one batch; return its sample rows."""
  task = step.prepared.task
  start = time.monotonic()
  generated = model.inference.generate(
    [prompt.tokens for prompt in batch],
    max_new_tokens=step.prepared.fingerprint['max_new_tokens'],
    temperatures=step.alignment.temperatures,
  )
  seconds = (time.monotonic() - start) / len(batch)
  rows = []
  for prompt, answer in zip(batch, generated, strict=True):
    prediction = model.vocabulary.decode(answer.tokens)
    # A failed sample is wrong, whatever it happens to say.
    score = task.score(prediction, prompt.sample) if answer.finite else 0.0
    rows.append(
      {
        'id': prompt.sample.id,
        'task': task.name,
        'prompt_tokens': prompt.prompt_tokens,
        'truncated_tokens': prompt.truncated_tokens,
        'depth': prompt.sample.depth,
        'target': prompt.sample.target,
        'prediction': prediction,
        'score': float(score),
        'finite': bool(answer.finite),
        'seconds': round(seconds, 4),
      }
    )
  return rows


def _append(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Add rows to a file; they survive whatever comes next."""
  with open(path, 'a', encoding='utf-8', newline='\n') as file:
    file.write(''.join(results.to_json(row) + '\n' for row in rows))
    file.flush()
    os.fsync(file.fileno())


def _make_row(output_dir: pathlib.Path, step: _Step) -> dict[str, Any]:
  """Return the row of a step from the files."""
  task, alignment = step.prepared.task, step.alignment.name
  ids = {prompt.sample.id for prompt in step.prepared.prompts}

  def read(name: str) -> list[dict[str, Any]]:
    path = results.samples_path(output_dir, task.name, name)
    samples = results.read_samples(path) if path.exists() else []
    return [sample for sample in samples if sample['id'] in ids]

  samples = read(alignment)
  if len(samples) != len(ids):
    raise results.ResultsError(
      f'{step.path} has {len(samples)} of {len(ids)} samples: it was changed'
      ' during the run.'
    )
  baseline = [] if alignment == results.BASELINE else read(results.BASELINE)
  return results.make_row(task, alignment, samples, baseline)


def _with_row(
  rows: Sequence[dict[str, Any]], row: dict[str, Any]
) -> list[dict[str, Any]]:
  """Return the rows with one added, or put in the place of its earlier self."""
  key = (row['task'], row['alignment'])
  names = [(other['task'], other['alignment']) for other in rows]
  if key not in names:
    return [*rows, row]
  place = names.index(key)
  return [*rows[:place], row, *rows[place + 1 :]]
