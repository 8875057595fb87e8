"""Plans of the largest models on long inputs: bytes of each device.

Nothing is loaded or allocated: each row is compiled for devices that are
elsewhere, which takes a minute or more on two cores.

    python benchmarks/plans.py --output benchmarks/results/plans.json
    python benchmarks/plans.py --table \
        --output benchmarks/results/plans.json    # Markdown of it
"""

import argparse
import importlib.metadata
import json
import pathlib

LENGTH = 16_384
GIB = 2**30
# Model, devices, num_partitions.
ROWS = (
  ('t5-11b', 'v4-32', 16),
  ('flan-t5-xxl', 'v4-32', 8),
  ('t5-11b', '8xH200', 8),
  ('flan-t5-xxl', '8xH200', 8),
)
PARTS = ('parameters', 'cache', 'logits', 'activations')


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--output', required=True)
  parser.add_argument('--table', action='store_true', help='of that file')
  options = parser.parse_args()
  path = pathlib.Path(options.output)
  if options.table:
    print(markdown(json.loads(path.read_text('utf-8'))))
    return
  header = {'jax': importlib.metadata.version('jax'), 'length': LENGTH}
  document = {'header': header, 'rows': []}
  for row in ROWS:
    document['rows'].append(measure(*row))
    print(document['rows'][-1], flush=True)
    path.write_text(json.dumps(document, indent=1) + '\n', encoding='utf-8')


def measure(model, devices, num_partitions):
  """Return one row: bytes of a device."""
  from t5_align.plan import plan

  found = plan(model, LENGTH, devices=devices, num_partitions=num_partitions)
  return {
    'model': model,
    'devices': devices,
    'mesh': found.mesh,
    'num_groups': found.num_groups,
    'batch_size': found.batch_size,
    'program': found.program,
    'how': found.how,
    **{part: getattr(found, part) for part in PARTS},
    'total': found.total_bytes,
    'usable': found.usable_bytes,
    'fits': found.fits,
    'refusal': found.refusal,
  }


def markdown(document):
  """Return the table of a results file, in GiB."""
  heads = ('model', 'devices', 'mesh', *PARTS, 'total', 'fits')
  lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
  for row in document['rows']:
    mesh = ' x '.join(map(str, row['mesh']))
    if row['num_groups'] > 1:
      mesh = f'{row["num_groups"]} groups of {mesh}'
    sizes = [f'{row[name] / GIB:.2f}' for name in (*PARTS, 'total')]
    fits = f'{"" if row["fits"] else "not "}of {row["usable"] / GIB:.2f}'
    cells = (f'`{row["model"]}`', row['devices'], mesh, *sizes, fits)
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


if __name__ == '__main__':
  main()
