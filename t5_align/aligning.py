"""From the name of an alignment to the temperatures of one model.

    none, log_n, yarn, …          a rule of `alignment.rules`
    entropy, maximum_probability  calibrated on the way, on development text
    0.8                           a constant of the encoder's logits
    FILE.json                     what a calibration wrote

What is calibrated on the way follows each row's number of keys, from the
training length to the longest prompt of the run, so it serves all its tasks.
It is kept in the run's folder: a run that is continued does not calibrate anew.

Synopsis:

    context = Context(prepared, settings, options, folder, text)
    parse_alignment('entropy', model, context).temperatures
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from t5_align import processes, prompts, provenance, results
from t5_align import temperature as temperature_lib
from t5_align.alignment import oracle, rules
from t5_align.alignment.calibrate import octaves
from t5_align.alignment.calibration import CalibrationOptions
from t5_align.calibration_text import CalibrationText
from t5_align.nearest import nearest
from t5_align.prompts import Prepared, Settings
from t5_align.temperature import Temperatures

_ORACLE_SAMPLES = 16  # of each task


@dataclasses.dataclass(frozen=True)
class Alignment:
  """Temperatures under the name that results know them by.

  Attributes:
    name: `none`, `temperature=0.8`, a rule, or a file's name with its hash.
    temperatures: what divides the attention logits.
  """

  name: str
  temperatures: Temperatures


@dataclasses.dataclass(frozen=True)
class Context:
  """What an alignment that measures the model needs.

  Attributes:
    prepared: the tasks of the run.
    settings: of their prompts.
    options: of calibrations; strategy and method are those of the alignment.
    folder: where calibrations are kept.
    text: opens the text to calibrate on, of a split that isn't evaluated.
    announce: is told what takes a while.
  """

  prepared: Iterable[Prepared]
  settings: Settings
  options: CalibrationOptions
  folder: pathlib.Path
  text: Callable[[str], CalibrationText]
  announce: Callable[[str], None] = lambda message: None

  @property
  def longest(self) -> int:
    """Tokens of the longest prompt."""
    return max(
      len(prompt.tokens) for group in self.prepared for prompt in group.prompts
    )

  @property
  def split(self) -> str:
    """A split that isn't evaluated."""
    return 'train' if self.settings.split == 'dev' else 'dev'


def parse_alignment(
  value: Any, model: Any, context: Context | None = None
) -> Alignment:
  """Return the alignment that a flag or a gin value names.

  Args:
    value: the name of a rule; a number, which divides the logits; a
      temperatures.json; or a Temperatures.
    model: what load_model returns.
    context: for alignments that measure the model; its options name the sites
      of all but files (default: the encoder, or the decoder of a model that has
      none).

  Raises:
    ValueError: anything else, a temperature that is not positive, a file of
      another model, or a rule that needs what isn't known.
    ResumeError: the run's folder has results of another such alignment.
  """
  if isinstance(value, Temperatures):
    return _named_by_content('temperatures.json', value)
  text = str(value).strip()
  sites = ('decoder' if model.checkpoint.decoder_only else 'encoder',)
  if context is not None:
    sites = tuple(context.options.sites or sites)
  if text.endswith('.json'):
    return _named_by_content(
      pathlib.PurePath(text).name, load_temperatures(text, model)
    )
  if text in rules.RULES:
    setting = rules.Setting(model.config, model.training_length, sites)
    if context is not None:
      setting = dataclasses.replace(
        setting,
        calibrate=lambda **options: _calibrate(text, model, context, options),
        search=lambda: _search(text, model, context, sites),
      )
    try:
      return Alignment(text, rules.RULES[text].temperatures(setting))
    except rules.SettingError as error:
      raise ValueError(f'alignment {text!r}: {error}') from error
  try:
    number = float(text)
  except ValueError:
    raise ValueError(
      f'Unknown alignment {text!r}; {nearest(text, rules.RULES)} A number such'
      ' as 0.8 or a FILE.json will do, too.'
    ) from None
  temperatures = Temperatures(**dict.fromkeys(sites, number))
  return Alignment(f'temperature={number!r}', temperatures)


def load_temperatures(path: str, model: Any) -> Temperatures:
  """Read temperatures of this model; TemperatureError for another's."""
  temperatures, calibration = temperature_lib.load_calibrated(path)
  model.check_calibration(path, calibration)
  temperatures.check(model.config)
  return temperatures


def _calibrate(name, model, context, options) -> Temperatures:
  """Calibrate for every length of a run, or read what did so before."""
  sites = context.options.sites or ()
  if 'decoder' in sites and not model.checkpoint.decoder_only:
    raise ValueError(
      f'alignment {name!r} follows the length of the prompts, but'
      ' CalibrationOptions.sites has the decoder, which sees no more keys where'
      ' they are longer. Leave it out, or evaluate the temperatures.json of'
      ' t5-align calibrate --sites decoder.'
    )
  lengths = octaves(
    model.training_length, context.longest, context.options.length_ratio
  )
  if not lengths:
    return Temperatures()  # nothing is longer than the training length
  chosen = dataclasses.replace(context.options, form='by_length', **options)
  text = context.text(context.split)
  asked = {
    **dataclasses.asdict(chosen),
    'training_length': model.training_length,
    'data': text.hash,
    'lengths': lengths,
  }
  del asked['tokens_per_batch']  # changes speed, never results

  def find() -> tuple[Temperatures, Mapping[str, Any]]:
    shown = ', '.join(f'{length:,}' for length in lengths)
    context.announce(f'calibrating {name!r} at {shown} tokens on {text.source}')
    calibration = model.calibrate(text, lengths, chosen)
    record = model.calibration_record(calibration, text)
    # What a report shows of why there are temperatures at all.
    record['attention_statistics'] = calibration.attention()
    return calibration.temperatures, record

  return _find_once(name, model, context, asked, find)


def _search(name, model, context, sites) -> Temperatures:
  """Find the constant with the likeliest answers on development samples."""
  settings = dataclasses.replace(
    context.settings,
    split=context.split,
    limit=_ORACLE_SAMPLES,
    data=None,
  )
  for group in context.prepared:
    if context.split not in group.task.splits():
      raise ValueError(
        f"alignment {name!r}: {group.task.name} has no split '{context.split}'"
        ' to search on.'
      )
  groups = [
    prompts.prepare(group.task, model, settings) for group in context.prepared
  ]
  asked = {
    'sites': list(sites),
    'tasks': {group.task.name: group.fingerprint for group in groups},
    **dataclasses.asdict(settings),
  }
  del asked['batch_size']  # changes speed, never results

  def find() -> tuple[Temperatures, Mapping[str, Any]]:
    samples = [prompt for group in groups for prompt in group.prompts]
    context.announce(f'searching on {len(samples)} development samples')
    inputs = [prompt.tokens for prompt in samples]
    vocabulary = model.vocabulary
    targets = [
      [*vocabulary.encode(prompt.sample.target), vocabulary.eos_id]
      for prompt in samples
    ]

    def mean_log_likelihood(temperatures: Temperatures) -> float:
      scored = model.inference.score(inputs, targets, temperatures)
      return float(np.mean([s.log_likelihood for s in scored]))

    temperatures, best = oracle.search(mean_log_likelihood, sites)
    return temperatures, {
      **provenance.describe(model),
      'weights': model.fingerprint,
      'mean_log_likelihood': best,
    }

  return _find_once(name, model, context, asked, find)


def _find_once(
  name: str,
  model: Any,
  context: Context,
  asked: Mapping[str, Any],
  find: Callable[[], tuple[Temperatures, Mapping[str, Any]]],
) -> Temperatures:
  """Return what the run's folder keeps; else find it, and keep it there.

  The first group of processes finds it; the others wait.

  Args:
    name: of the alignment.
    model: that it is for.
    context: of the run.
    asked: all that decides what is found.
    find: returns temperatures, and how they were found.

  Raises:
    ResumeError: the folder has results of something else by this name.
  """
  processes.check_shared(context.folder)
  path = context.folder / 'alignments' / f'{name}.json'
  asked = json.loads(results.to_json(asked))
  is_kept = _is_kept(name, path, model, context, asked)
  processes.wait_for_all(f'looked for {name}')
  if not is_kept and (model.layout is None or model.layout.group == 0):
    temperatures, record = find()
    if processes.is_writer():
      path.parent.mkdir(parents=True, exist_ok=True)
      record = json.loads(results.to_json({**record, 'asked': asked}))
      temperature_lib.save(path, temperatures, **record)
  processes.wait_for_all(f'found {name}')
  # What is found is also what is read: numbers as the file has them.
  return temperature_lib.load_calibrated(path)[0]


def _is_kept(
  name: str,
  path: pathlib.Path,
  model: Any,
  context: Context,
  asked: Mapping[str, Any],
) -> bool:
  """Return whether a file holds what is asked; see `_find_once`."""
  if not path.exists():
    return False
  _, record = temperature_lib.load_calibrated(path)
  model.check_calibration(path, record)
  earlier = record.get('asked', {})
  others = [key for key in asked if earlier.get(key) != asked[key]]
  if others and _has_results(context.folder, name):
    # Better now than after minutes of calibration.
    raise provenance.ResumeError(
      f'{context.folder} has results of {name!r} found with another'
      f' {others[0]}: {provenance.brief(earlier.get(others[0]))}, now'
      f' {provenance.brief(asked[others[0]])}. Choose a new output directory,'
      ' or set it back.'
    )
  return not others


def _has_results(folder: pathlib.Path, name: str) -> bool:
  if not (folder / 'results.json').exists():
    return False
  return name in results.read_results(folder)[0]['temperatures']


def _named_by_content(name: str, temperatures: Temperatures) -> Alignment:
  content = results.to_json(temperatures.to_json())
  digest = hashlib.sha256(content.encode()).hexdigest()
  return Alignment(f'{name}@{digest[:8]}', temperatures)
