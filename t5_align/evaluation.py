"""From tasks to rows: batches, answers, scores, files.

Every task is asked under every alignment in one process. Temperatures are
traced, so a shape compiles once however many alignments there are:

    prompt -> batch -> generate(temperatures) -> text -> quantities -> row

The device never waits: while it works, tasks are made ready, and answers are
scored, written and summed up. A rerun takes up where the last one stopped, and
refuses where it would mix two configurations. Groups of processes share the
batches (`sharding.Layout`); the leader of each writes its part of the samples,
which the first process puts together (`sample_files`).

Synopsis:

    settings = Settings(batch_size=8, limit=50)
    alignments = [parse_alignment(a, model) for a in ('none', 0.8)]
    header, rows = evaluate(model, tasks, alignments, 'out', settings)
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from concurrent import futures
import dataclasses
import os
import pathlib
import time
from typing import Any

from rich import console as rich_console

from t5_align import (
  answering,
  processes,
  progress,
  provenance,
  results,
  sample_files,
)
from t5_align.aligning import Alignment
from t5_align.preparation import Preparation
from t5_align.prompts import Prepared, Prompt, Settings
from t5_align.sharding import Layout
from t5_align.tasks.generators import task as task_lib

# Batches and rows that are not yet written, at most.
_MOST_BEHIND = 4
# What a loss of power may cost; a crash of this process costs nothing written.
_SECONDS_AT_RISK = 1.0


@dataclasses.dataclass(frozen=True)
class _Step:
  """One task under one alignment, and what is left to do of it."""

  prepared: Prepared
  alignment: Alignment
  path: pathlib.Path
  # The prompts of each of this process's batches, and the ids among them that
  # are not on disk.
  batches: Sequence[tuple[list[Prompt], set[str]]]

  @property
  def label(self) -> str:
    return f'{self.prepared.task.name} {self.alignment.name}'

  @property
  def num_tokens(self) -> int:
    """Of the prompts that are asked."""
    return sum(_num_tokens(batch) for batch, _ in self.batches)

  @property
  def num_samples(self) -> int:
    return sum(len(batch) for batch, _ in self.batches)


def evaluate(
  model: Any,
  tasks: Sequence[task_lib.TaskDefinition] | Preparation,
  alignments: Sequence[Alignment],
  output_dir: str | os.PathLike,
  settings: Settings,
  console: rich_console.Console | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Evaluate every task under every alignment; write and return the results.

  Args:
    model: a Model.
    tasks: what to ask, each task once; or the same, being made ready.
    alignments: the temperatures to ask under.
    output_dir: gets results.json and samples/; may hold an earlier run of the
      same configuration, which is continued.
    settings: which samples, and how they are answered.
    console: where progress and warnings are shown; None for silence.

  Returns:
    The header and the rows of results.json.

  Raises:
    PromptTooLongError: a prompt over the limit.
    DataError: published samples that cannot be read.
    ResultsError: an output directory that this run cannot continue.
  """
  if not isinstance(tasks, Preparation):
    tasks = Preparation(tasks, model, settings)
  run = _Run(model, pathlib.Path(output_dir), settings, tasks)
  # The others are compared with 'none', so it comes first.
  alignments = sorted(
    {a.name: a for a in alignments}.values(),
    key=lambda a: a.name != results.BASELINE,
  )
  for alignment in alignments:
    alignment.temperatures.check(model.config)
  run.begin(alignments)
  announced = 0
  with progress.progress_display(console) as display, run.behind:
    for prepared in tasks:
      for known in tasks.ready[announced:]:
        announced += 1
        for _ in alignments:
          display.expect(_num_tokens(known.prompts), len(known.prompts))
      _warn(prepared, console)
      run.add(prepared)
      steps = [
        _plan(
          prepared, alignment, run.output_dir, settings.batch_size, model.layout
        )
        for alignment in alignments
      ]
      for step in steps:
        # Some of what was announced may be done already, or others do it.
        display.expect(
          step.num_tokens - _num_tokens(prepared.prompts),
          step.num_samples - len(prepared.prompts),
        )
      for step in steps:
        run.ask(step, display)
    run.behind.wait()
  return run.header, run.rows


def _warn(prepared: Prepared, console: rich_console.Console | None) -> None:
  """Say what is lost before the model reads it."""
  if console is not None:
    for warning in prepared.warnings():
      console.print(warning, highlight=False, markup=False, soft_wrap=True)


class _Behind(futures.ThreadPoolExecutor):
  """One thread that works behind the device, in order, not too far."""

  def __init__(self):
    super().__init__(1)
    self._pending: collections.deque[futures.Future] = collections.deque()

  def do(self, work: Callable[..., None], *arguments: Any) -> None:
    """Have something done after all before it; raise what went wrong there."""
    while self._pending and (
      self._pending[0].done() or len(self._pending) >= _MOST_BEHIND
    ):
      self._pending.popleft().result()
    before = self._pending[-1] if self._pending else None
    self._pending.append(self.submit(_do_after, before, work, *arguments))

  def wait(self) -> None:
    """Return when all is done; raise what went wrong."""
    while self._pending:
      self._pending.popleft().result()


def _do_after(
  before: futures.Future | None, work: Callable[..., None], *arguments: Any
) -> None:
  """Work, but not where what came before went wrong."""
  if before is not None:
    before.result()
  work(*arguments)


class _Run:
  """The files of a run, and what is written to them."""

  def __init__(
    self,
    model: Any,
    output_dir: pathlib.Path,
    settings: Settings,
    preparation: Preparation,
  ):
    self.model = model
    self.output_dir = output_dir
    self.settings = settings
    self.preparation = preparation
    self.header: dict[str, Any] = {}
    self.rows: list[dict[str, Any]] = []
    self.behind = _Behind()
    self._last_sync = time.monotonic()
    self._layout: Layout | None = model.layout

  def begin(self, alignments: Sequence[Alignment]) -> None:
    """Start results.json, or go on with the one that is there."""
    temperatures = {a.name: a.temperatures.to_json() for a in alignments}
    header = self._make_header({}, {}, temperatures)
    self.header, self.rows = _continue_from(self.output_dir, header)
    processes.check_shared(self.output_dir)

  def add(self, prepared: Prepared) -> None:
    """Enter a task; ResumeError if the folder has another by its name."""
    name = prepared.task.name
    header = self._make_header(
      {name: prepared.fingerprint}, {name: prepared.lost_characters}, {}
    )
    header['compiled_shapes'] = self.header['compiled_shapes']
    self.header = provenance.merge_headers(self.header, header)
    self.behind.do(self._write)

  def ask(self, step: _Step, display: progress.Display) -> None:
    """Answer what is left of a step; the rest is done behind the device."""
    for batch, missing in step.batches:
      self.preparation.check()
      answers = answering.ask(
        self.model, step.prepared, batch, step.alignment.temperatures
      )
      self.behind.do(self._write_answers, step, answers, missing)
      display.advance(_num_tokens(batch), len(batch), step.label)
    # Processes meet in the same order: in this thread.
    self.behind.wait()
    processes.wait_for_all(f'answered {step.label}')
    sample_files.gather(step.path, _ids(step.prepared.prompts))
    # A finished run that is asked for again compiles nothing.
    compiled = self.model.inference.num_compiled
    self.header['compiled_shapes'] = compiled or self.header['compiled_shapes']
    self.behind.do(self._sum_up, step)

  def _sum_up(self, step: _Step) -> None:
    """Make the row of a step, whose samples are in its file."""
    self.rows = _with_row(self.rows, _make_row(self.output_dir, step))
    self._write()

  def _write_answers(
    self, step: _Step, answers: answering.Answers, missing: set[str]
  ) -> None:
    """Score a batch, and write the samples that are missing."""
    rows = answering.judge(self.model, step.prepared.task, answers)
    # A disk may take as long for it as a small model for a batch.
    is_due = time.monotonic() - self._last_sync > _SECONDS_AT_RISK
    kept = [row for row in rows if row['id'] in missing]
    if self._layout is None or self._layout.is_leader:
      sample_files.append(step.path, kept, sync=is_due)
    if is_due:
      self._last_sync = time.monotonic()

  def _make_header(self, tasks, lost_characters, temperatures):
    settings = dataclasses.asdict(self.settings)
    header = provenance.make_header(
      self.model, tasks, lost_characters, temperatures, settings
    )
    return header | {'compiled_shapes': 0}

  def _write(self) -> None:
    if processes.is_writer():
      (self.output_dir / 'samples').mkdir(parents=True, exist_ok=True)
      results.write_results(self.output_dir, self.header, self.rows)


def _continue_from(
  output_dir: pathlib.Path, header: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Return header and rows to start from: an earlier run's, where one was."""
  if (output_dir / 'results.json').exists():
    earlier, rows = results.read_results(output_dir)
    header['compiled_shapes'] = earlier.get('compiled_shapes', 0)
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
  layout: Layout | None,
) -> _Step:
  """Return the batches that this process's group answers, short prompts first.

  Batches are the same whether a run was interrupted or not, and however many
  groups share them, so that answers never depend on it: one written in part is
  generated whole once more.

  Raises:
    ResumeError: a sample was asked with another prompt.
  """
  path = results.samples_path(output_dir, prepared.task.name, alignment.name)
  sample_files.gather(path, _ids(prepared.prompts))
  done = {
    sample['id']: sample['prompt_hash'] for sample in sample_files.read(path)
  }
  for prompt in prepared.prompts:
    if done.get(prompt.sample.id, prompt.hash) != prompt.hash:
      raise provenance.ResumeError(
        f'{path}: sample {prompt.sample.id} was asked with another prompt: the'
        ' data changed. Choose a new output directory.'
      )
  ordered = _in_order(prepared.prompts)
  batches = []
  for start in range(0, len(ordered), batch_size):
    batch = ordered[start : start + batch_size]
    missing = {prompt.sample.id for prompt in batch} - done.keys()
    if missing:
      batches.append((batch, missing))
  if layout is None:
    share = processes.deal(batches)
  else:
    share = processes.deal(batches, layout.group, layout.num_groups)
  return _Step(prepared, alignment, path, share)


def _in_order(prompts: Sequence[Prompt]) -> list[Prompt]:
  return sorted(prompts, key=lambda prompt: len(prompt.tokens))


def _ids(prompts: Sequence[Prompt]) -> list[str]:
  """The order of a samples file."""
  return [prompt.sample.id for prompt in _in_order(prompts)]


def _num_tokens(batch: Sequence[Prompt]) -> int:
  return sum(len(prompt.tokens) for prompt in batch)


def _make_row(output_dir: pathlib.Path, step: _Step) -> dict[str, Any]:
  """Return the row of a step from the files."""
  task, alignment = step.prepared.task, step.alignment.name
  ids = {prompt.sample.id for prompt in step.prepared.prompts}

  def read(name: str) -> list[dict[str, Any]]:
    path = results.samples_path(output_dir, task.name, name)
    return [s for s in sample_files.read(path) if s['id'] in ids]

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
