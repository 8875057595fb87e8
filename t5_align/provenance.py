"""How results came about, and whether two runs may share a folder.

A header holds everything that a number depends on: versions, device, the
weights and the tokenizer by their hashes, tasks by version and wording,
temperatures and settings. A later run continues a folder only if all that
decides its answers is equal; what differs is named.

Synopsis:

    header = make_header(model, tasks, lost, temperatures, settings)
    header = merge_headers(earlier_header, header)      # or ResumeError
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import pathlib
import subprocess
from typing import Any

import jax

from t5_align import __version__, bundled, results
from t5_align.config import T5Config

# What an answer does not depend on: a rerun may change it.
_FREE_SETTINGS = ('batch_size', 'limit')
# What the tasks' fingerprints say better.
_IN_TASKS = ('data', 'template', 'max_new_tokens')


class ResumeError(results.ResultsError):
  """A folder that holds the results of another configuration."""


def make_header(
  model: Any,
  tasks: Mapping[str, Mapping[str, Any]],
  lost_characters: Mapping[str, str],
  temperatures: Mapping[str, Any],
  settings: Mapping[str, Any],
) -> dict[str, Any]:
  """Return the header of a run.

  Args:
    model: what load_model returns.
    tasks: task name -> what decides its samples.
    lost_characters: task name -> what the vocabulary cannot represent of it.
    temperatures: alignment name -> its temperatures, in JSON types.
    settings: name -> value.
  """
  header = {
    **describe(model),
    'tasks': dict(tasks),
    'lost_characters': dict(lost_characters),
    'temperatures': dict(temperatures),
    'settings': dict(settings),
    'seed': settings['seed'],
  }
  return header | {'config_hash': _config_hash(header)}


def describe(model: Any) -> dict[str, Any]:
  """Return versions, device and model: the part of a header of any run.

  Args:
    model: what load_model returns.
  """
  devices = jax.devices()
  return {
    'package': f't5_align {__version__}',
    'jax': jax.__version__,
    'jaxlib': importlib.metadata.version('jaxlib'),
    'device': {'kind': devices[0].device_kind, 'count': len(devices)},
    'mesh': None,
    'dtype': jax.numpy.dtype(model.config.dtype).name,
    'attention': model.config.attention or 'automatic',
    'checkpoint': {
      'path': bundled.name_of(model.checkpoint.path),
      'format': model.checkpoint.format,
      'content_hash': model.checkpoint.content_hash,
    },
    'model': _sizes(model.config),
    'training_length': model.training_length,
    'tokenizer_hash': model.vocabulary.hash,
    'git_commit': _git_commit(),
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
  }


def _sizes(config: T5Config) -> dict[str, Any]:
  """Return the model's config, less what the header has elsewhere."""
  elsewhere = ('dtype', 'attention', 'temperatures')
  fields = dataclasses.asdict(config)
  kept = {k: v for k, v in fields.items() if k not in elsewhere}
  return kept | {'mlp_activations': list(config.mlp_activations)}


def merge_headers(
  earlier: Mapping[str, Any], header: Mapping[str, Any]
) -> dict[str, Any]:
  """Return the header of a folder that both runs wrote to.

  Raises:
    ResumeError: naming the first field in which the answers of the two runs
      could differ.
  """
  before, now = _deciding_fields(earlier), _deciding_fields(header)
  for field, value in now.items():
    if field in before and before[field] != value:
      raise ResumeError(
        f'the output directory has results with another {field}:'
        f' {brief(before[field])}, now {brief(value)}. Choose a new output'
        ' directory, or set it back.'
      )
  by_name = ('tasks', 'temperatures', 'lost_characters')
  merged = {**header, **{key: earlier[key] | header[key] for key in by_name}}
  return merged | {'config_hash': _config_hash(merged)}


def _deciding_fields(header: Mapping[str, Any]) -> dict[str, Any]:
  """Return what decides the answers: dotted name -> value."""
  fields = {
    'dtype': header['dtype'],
    'attention': header['attention'],
    'checkpoint.content_hash': header['checkpoint']['content_hash'],
    'tokenizer_hash': header['tokenizer_hash'],
  }
  # A T5X folder does not say its own; an older header did not either.
  for name, value in header.get('model', {}).items():
    fields[f'model.{name}'] = value
  for name, value in header['settings'].items():
    if name not in (*_FREE_SETTINGS, *_IN_TASKS):
      fields[f'settings.{name}'] = value
  for task, facts in header['tasks'].items():
    for name, value in facts.items():
      fields[f'tasks.{task}.{name}'] = value
  for alignment, value in header['temperatures'].items():
    fields[f'temperatures.{alignment}'] = value
  # As a file gives them back, so that 1 and 1.0, tuple and list compare.
  return {name: results.to_json(value) for name, value in fields.items()}


def _config_hash(header: Mapping[str, Any]) -> str:
  text = results.to_json(sorted(_deciding_fields(header).items()))
  return hashlib.sha256(text.encode()).hexdigest()


def brief(value: Any) -> str:
  """Return a value as an error names it."""
  text = str(value)
  return text if len(text) <= 40 else f'{text[:37]}...'


@functools.cache
def _git_commit() -> str | None:
  """Return the commit of the running sources, None outside their git."""
  folder = pathlib.Path(__file__).resolve().parent

  def git(*arguments: str) -> str | None:
    try:
      done = subprocess.run(
        ['git', '-C', str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
      )
    except (OSError, subprocess.SubprocessError):
      return None
    return done.stdout.strip()

  # An installed copy may lie inside some other project's repository.
  if git('ls-files', '--error-unmatch', pathlib.Path(__file__).name) is None:
    return None
  return git('describe', '--always', '--abbrev=40', '--dirty', '--exclude=*')
