"""From a batch of prompts to the rows of its samples.

What the device does (`ask`) and what is made of its answers (`judge`) are
apart, so that one batch is judged while the next one runs.

Synopsis:

    answers = ask(model, prepared, batch, temperatures)
    rows = judge(model, prepared.task, answers)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import time
from typing import Any, NamedTuple

from t5_align.inference import Generated, Scored
from t5_align.prompts import Prepared, Prompt
from t5_align.tasks import measures
from t5_align.tasks.generators import task as task_lib
from t5_align.temperature import Temperatures


class Answers(NamedTuple):
  """What the model makes of a batch.

  Attributes:
    prompts: the batch.
    outputs: one a prompt: what it wrote, or the likelihood of its target.
    seconds: of one prompt, on average.
  """

  prompts: Sequence[Prompt]
  outputs: Sequence[Generated | Scored]
  seconds: float


def ask(
  model: Any,
  prepared: Prepared,
  batch: Sequence[Prompt],
  temperatures: Temperatures,
) -> Answers:
  """Return the model's answers to a batch of one task's prompts."""
  start = time.monotonic()
  inputs = [prompt.tokens for prompt in batch]
  if prepared.task.scored:
    outputs = model.inference.score(
      inputs, [prompt.target_tokens for prompt in batch], temperatures
    )
  else:
    outputs = model.inference.generate(
      inputs,
      max_new_tokens=prepared.fingerprint['max_new_tokens'],
      temperatures=temperatures,
    )
  return Answers(batch, outputs, (time.monotonic() - start) / len(batch))


def judge(
  model: Any, task: task_lib.TaskDefinition, answers: Answers
) -> list[dict[str, Any]]:
  """Return the sample rows of a batch."""
  rows = []
  for prompt, output in zip(answers.prompts, answers.outputs, strict=True):
    prediction, quantities = (
      _likelihood(model, prompt, output)
      if task.scored
      else _text(model, task, prompt, output)
    )
    rows.append(
      {
        'id': prompt.sample.id,
        'task': task.name,
        'prompt_tokens': prompt.prompt_tokens,
        'truncated_tokens': prompt.truncated_tokens,
        'lost_characters': prompt.lost_characters,
        'depth': prompt.sample.depth,
        'cluster': prompt.sample.cluster,
        'target': prompt.sample.target,
        'prediction': prediction,
        'score': _score(task, quantities),
        'quantities': quantities,
        'finite': bool(output.finite),
        'prompt_hash': prompt.hash,
        'seconds': round(answers.seconds, 4),
      }
    )
  return rows


def _text(
  model: Any, task: task_lib.TaskDefinition, prompt: Prompt, output: Any
) -> tuple[str, dict[str, float]]:
  """Return the text of an answer, and what the metrics say of it."""
  prediction = model.vocabulary.decode(output.tokens)
  quantities = task.score(prediction, prompt.sample, prompt.readable_answers)
  if not output.finite:
    # A failed sample is wrong, whatever it happens to say.
    quantities = {
      name: value if name == measures.CEILING else 0.0
      for name, value in quantities.items()
    }
  return prediction, quantities


def _likelihood(
  model: Any, prompt: Prompt, output: Any
) -> tuple[None, dict[str, float | None]]:
  """Return no text, and what the likelihood of a target gives."""
  quantities: dict[str, float | None] = dict(
    measures.text_quantities(
      prompt.sample.target,
      -output.log_likelihood,
      prompt.target_tokens,
      model.vocabulary.unk_id,
    )
  )
  if not output.finite:
    quantities |= {'nats': None, 'bits': None}
  return None, quantities


def _score(
  task: task_lib.TaskDefinition, quantities: Mapping[str, float | None]
) -> float | None:
  """Return the sample's own value of the task's metric."""
  known = {name: q for name, q in quantities.items() if q is not None}
  return task.measures[0].of(known) if len(known) == len(quantities) else None
