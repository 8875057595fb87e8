"""Files of samples that several processes write, and one puts together.

    samples/TASK.ALIGNMENT.jsonl    whole, short prompts first
    samples/TASK.ALIGNMENT.partI    what process I has added since

A part grows by whole batches and survives its process, so a run goes on with as
many processes as one likes: the first one gathers all parts that it finds, of
processes that are no more, too. A line that was torn is answered again.

Synopsis:

    append(path, rows, sync=True)        # to this process's part
    wait_for_all('answered')
    gather(path, ids)                    # parts -> path
    read(path)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import glob
import os
import pathlib
from typing import Any

import jax

from t5_align import processes, results


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """Return the whole samples of a file; none where there is no file."""
  return results.read_samples(path) if path.exists() else []


def append(
  path: pathlib.Path, rows: Sequence[Mapping[str, Any]], sync: bool
) -> None:
  """Add rows to this process's part of a file.

  Args:
    path: of the whole file.
    rows: samples.
    sync: they are to survive whatever comes next.
  """
  with open(_part(path), 'a', encoding='utf-8', newline='\n') as file:
    file.write(''.join(results.to_json(row) + '\n' for row in rows))
    if sync:
      file.flush()
      os.fsync(file.fileno())


def gather(path: pathlib.Path, ids: Sequence[str]) -> None:
  """Put the parts of a file together; all processes must call.

  What was written before an interruption is a part, too, whole or torn.

  Args:
    path: of the whole file.
    ids: of its samples, in order.
  """
  if processes.is_writer():
    parts = sorted(path.parent.glob(f'{glob.escape(path.stem)}.part*'))
    lines = {
      sample['id']: results.to_json(sample) + '\n'
      for file in (path, *parts)
      for sample in read(file)
    }
    places = {name: i for i, name in enumerate(ids)}
    # Samples beyond a lower limit than before stay, at the end, where a report
    # passes over them.
    ordered = sorted(lines, key=lambda name: places.get(name, len(places)))
    if ordered != list(lines) or parts:
      results.write_atomically(path, ''.join(lines[name] for name in ordered))
    for part in parts:
      part.unlink()
  processes.wait_for_all(f'gathered {path.name}')


def _part(path: pathlib.Path) -> pathlib.Path:
  """Return the file that this process adds the samples of `path` to."""
  return path.with_suffix(f'.part{jax.process_index()}')
