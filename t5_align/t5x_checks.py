"""What T5X would do silently wrong, refused before it costs a run.

T5X takes a temperature that is bound to a class the model does not use, a
misspelt macro, a network with fewer layers than its checkpoint, a folder with
results of other temperatures and samples that it must cut, and says nothing. A
gin file that imports this module and takes its restore configuration from
`checked_restore` gets an error instead.

Two moments: what gin was told is checked once all of it is parsed, files and
folders when `checked_restore` is called, which is before T5X reads data, builds
parameters or lets Orbax make a folder.

Synopsis, in a gin file for T5X's eval:

    from t5_align import t5x_checks
    eval_script.evaluate.restore_checkpoint_cfg = @t5x_checks.checked_restore()
    t5x_checks.checked_restore:
      restore = @utils.RestoreCheckpointConfig()
      model = %MODEL
      output_dir = %EVAL_OUTPUT_DIR
      dataset = @utils.DatasetConfig()

To infer add `steps_apart = False`, to train leave `dataset` out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
import difflib
import importlib
import inspect
import os
import re
import sys
from typing import Any

from etils import epath
from gin import config as gin_config

from t5_align import config as config_lib
from t5_align import processes, run_settings, t5x_checkpoints
from t5_align.nearest import nearest

# (scope, name of the configurable) -> its bound parameters.
GinConfig = Mapping[tuple[str, str], Mapping[str, Any]]

TRUNCATIONS = ('error', 'right')

_MACRO = 'gin.macro'
# What T5X's run is: everything it uses is referred to from there.
_ROOT = '__main__.'
# Networks' configurations by their name, ours and T5X's; and what ours is of.
_CONFIGS = ('T5Config', 'TransformerConfig')
_OWN = ('t5_align.network.', 't5_align.config.', 't5_align.temperature.')
# A misspelt name shares more with the right one than two right names do
# (MIXTURE_OR_TASK_NAME and MIXTURE_OR_TASK_MODULE: 0.86).
_MISSPELT = 0.9
# What is in an output folder before there are results.
_NO_RESULTS = ('config.gin', 'model-info.txt', 'settings.json')


def checked_restore(
  model: Any,
  output_dir: str,
  restore: Any = None,
  dataset: Any = None,
  truncation: str = 'error',
  steps_apart: bool = True,
) -> Any:
  """Check a run of T5X, and return its restore configuration.

  Args:
    model: T5X's model around one of our networks. A checkpoint is not compared
      with a network that is not ours.
    output_dir: of the results; the temperatures are noted there.
    restore: a t5x.utils.RestoreCheckpointConfig; None to start from nothing.
      Shapes are not compared where it renames weights.
    dataset: a t5x.utils.DatasetConfig, whose samples are counted if there is a
      limit on their lengths. None where cutting is meant, as in training.
    truncation: 'error', or 'right' to let seqio cut what is too long.
    steps_apart: whether results of several steps of a model fit one folder.

  Raises:
    ValueError: whatever T5X would have been silent about.
  """
  if truncation not in TRUNCATIONS:
    raise ValueError(
      f'truncation is {truncation!r}; {nearest(truncation, TRUNCATIONS)}'
    )
  if restore is not None:
    folders = t5x_checkpoints.checkpoint_folders(restore.path, restore.mode)
    if not _maps_weights(restore):
      for folder in folders:
        t5x_checkpoints.check_shapes(folder, model.module)
  if dataset is not None and truncation == 'error':
    check_lengths(dataset)
  note_settings(output_dir, _settings(model, restore, dataset, steps_apart))
  return restore


@gin_config.register_finalize_hook
def _check_gin(config: GinConfig) -> None:
  """Check a complete configuration, if it is of a run that asks for it."""
  own = f'{__name__}.{checked_restore.__name__}'
  if any(name == own for _, name in config):
    check_macros(config, macros_of_flags(sys.argv))
    check_bindings(config)


def macros_of_flags(arguments: Sequence[str]) -> list[str]:
  """Return the macros that T5X's flags bind, `--gin.NAME=VALUE`."""
  found = (
    re.match(r'--gin(?:\.|_bindings=)([A-Za-z_]\w*)\s*=', argument)
    for argument in arguments
  )
  return [match[1] for match in found if match]


def check_macros(config: GinConfig, given: Collection[str]) -> None:
  """Refuse a macro that nothing reads, if it was given or is a misspelling.

  Gin files may well bind what a run does not read.

  Args:
    config: what gin was told.
    given: the macros that the user named.

  Raises:
    ValueError: naming it, and the macro that may be meant.
  """
  read = {
    '/'.join(reference.scopes)
    for reference in gin_config.iterate_references(config)
    if _name(reference) == _MACRO
  }
  for name in [scope for scope, name in config if name == _MACRO]:
    misspelt = difflib.get_close_matches(name, read, 1, _MISSPELT)
    if name not in read and (name in given or misspelt):
      raise ValueError(
        f'{name} is bound, but nothing in the gin files reads a macro of this'
        f' name, so it has no effect; {nearest(name, sorted(read))}'
      )


def check_bindings(config: GinConfig) -> None:
  """Refuse a network's setting that the run does not reach.

  A parameter that is bound to its default, or to None, is only mentioned, so
  that flags may name it.

  Raises:
    ValueError: naming the parameter, and what the run uses in its place.
  """
  used = set(_reached(config))
  for (_, name), parameters in config.items():
    is_knob = name.startswith(_OWN) or name.endswith(_CONFIGS)
    if not is_knob or name in used:
      continue
    defaults = _defaults(name)
    for parameter, value in parameters.items():
      if value is None or value == defaults.get(parameter):
        continue
      knob = f'{name}.{parameter}'
      last = name.rpartition('.')[2]
      others = [n for n in used if n.rpartition('.')[2] == last] or [
        n for n in used if n.endswith(_CONFIGS) or n.startswith(_OWN)
      ]
      raise ValueError(
        f'{knob} is bound to {value!r}, but the model does not use {name}, so'
        f' it has no effect; used: {", ".join(sorted(others)) or "none"}.'
        ' Refer to it from MODEL (its module ='
        ' @network.Transformer() of `from t5_align import network`, whose'
        ' config = @network.T5Config(), whose temperatures ='
        ' @temperature.Temperatures()), or take the binding out.'
      )


def _reached(config: GinConfig) -> Iterator[str]:
  """Yield the configurables that a run of T5X refers to, in any scope."""
  waiting = [name for _, name in config if name.startswith(_ROOT)]
  seen = set()
  while waiting:
    # A macro's name is its scope.
    name = waiting.pop()
    if name in seen:
      continue
    seen.add(name)
    yield name
    for (scope, bound), parameters in config.items():
      key = f'{scope}/{bound}' if bound == _MACRO else bound
      if key == name:
        for reference in gin_config.iterate_references(parameters):
          target = _name(reference)
          if target == _MACRO:
            target = f'{"/".join(reference.scopes)}/{target}'
          waiting.append(target)


def _name(reference: Any) -> str:
  return reference.configurable.selector


def _defaults(name: str) -> dict[str, Any]:
  """Return the defaults of a configurable's parameters."""
  function = gin_config.get_configurable(name)
  if isinstance(function, type):
    function = function.__init__  # what gin wraps of a class
  parameters = inspect.signature(inspect.unwrap(function)).parameters
  return {name: parameter.default for name, parameter in parameters.items()}


def _maps_weights(restore: Any) -> bool:
  """Return whether weights are renamed or left out on their way in."""
  rules = restore.assignment_map or ()
  # T5X makes one function of the rules.
  functions = len(restore.state_transformation_fns) - (
    restore.assignment_map is not None
  )
  return functions > 0 or any(
    not pattern.startswith('state/') for pattern, _ in rules
  )


def check_lengths(dataset: Any) -> None:
  """Refuse samples that TASK_FEATURE_LENGTHS would cut.

  Every sample is read and tokenized for it, once more.

  Args:
    dataset: a t5x.utils.DatasetConfig.

  Raises:
    ValueError: naming the first such sample of each task and their number.
  """
  import seqio

  limits = dataset.task_feature_lengths
  if not limits:
    return
  if dataset.module:
    importlib.import_module(dataset.module)
  problems, longest = [], dict(limits)
  source = seqio.get_mixture_or_task(dataset.mixture_or_task_name)
  for task in seqio.get_subtasks(source):
    if dataset.split not in task.splits:
      continue
    samples = task.get_dataset(
      None, dataset.split, use_cached=dataset.use_cached, shuffle=False
    )
    too_long = []
    for index, sample in enumerate(samples.as_numpy_iterator()):
      for feature, limit in limits.items():
        if feature not in sample or limit is None:
          continue
        length = len(sample[feature])
        longest[feature] = max(longest[feature], length)
        if length > limit:
          name = _sample_name(sample, index)
          too_long.append((name, f'{feature} of {length} tokens'))
    if too_long:
      number = len({name for name, _ in too_long})
      name, what = too_long[0]
      problems.append(
        f'{task.name}: {number} of {index + 1}, the first is {name} with {what}'
      )
  if problems:
    raise ValueError(
      f'TASK_FEATURE_LENGTHS={dict(limits)} would cut samples of'
      f' {"; of ".join(problems)}. Set TASK_FEATURE_LENGTHS={longest}, or let'
      " them be cut: t5x_checks.checked_restore.truncation='right'."
    )


def _sample_name(sample: Mapping[str, Any], index: int) -> str:
  if isinstance(name := sample.get('id'), bytes):
    return name.decode()
  return f'number {index}'


def note_settings(
  output_dir: str | os.PathLike[str], settings: Mapping[str, Any]
) -> None:
  """Note what decides a folder's results, or compare it with the note.

  Raises:
    ValueError: the folder has results of other settings, or of unknown ones.
  """
  folder = epath.Path(output_dir)
  names = (
    {child.name for child in folder.iterdir()} if folder.exists() else set()
  )
  if names.difference(_NO_RESULTS):
    if 'settings.json' in names:
      run_settings.check(folder, settings)
      return
    if not any(name.startswith('checkpoint_') for name in names):
      raise ValueError(
        f'{folder} holds {", ".join(sorted(names)[:5])}, and nothing says'
        ' under which temperatures: choose another output folder.'
      )
  if processes.is_writer():
    folder.mkdir(parents=True, exist_ok=True)
    run_settings.write(folder, settings)


def _settings(
  model: Any, restore: Any, dataset: Any, steps_apart: bool
) -> dict[str, Any]:
  """Return what decides results, in JSON types."""
  config = getattr(model.module, 'config', None)
  settings: dict[str, Any] = {}
  if isinstance(config, config_lib.T5Config):
    settings['temperatures'] = config.temperatures.to_json()
  if restore is not None:
    paths = [restore.path] if isinstance(restore.path, str) else restore.path
    paths = [path.rstrip('/') for path in paths]
    if steps_apart:
      paths = [re.sub(r'/checkpoint_\d+$', '', path) for path in paths]
    settings['checkpoint'] = paths
  if dataset is not None:
    lengths = dataset.task_feature_lengths
    settings['task_feature_lengths'] = lengths and dict(lengths)
  return settings
