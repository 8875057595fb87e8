"""Markdown of what `training.py` measured.

One table has a row of each variant; another tells which share of a step its
parts take, from the differences between variants.
"""


def markdown(document):
  """Return the tables of a results file."""
  header = document['header']
  lines = [
    f'{header["device"]}: {header["ceiling_flops"] / 1e12:,.1f} TFLOP/s in'
    f' {header["dtype"]}, {header["float32_flops"] / 1e12:,.1f} in float32;'
    f' a copy {header["copy_bytes_per_second"] / 1e9:,.0f} GB/s.',
    '',
    '| model | | batch | ms | tokens/s | TFLOP/s | share | XLA/model FLOPs'
    ' | bytes bound, ms | temporary GiB |',
    '|---' * 10 + '|',
  ]
  for row in document['rows']:
    cells = [row['case'], row['variant']]
    if 'seconds' in row:
      cells += [_number(row, 'batch_size', '{:,}')]
      cells += [f'{1e3 * row["seconds"]:,.2f}']
      rate = row['tokens'] / row['seconds']
      cells += [f'{rate:,.0f}', _number(row, 'tflops', '{:,.1f}')]
      cells += [_number(row, 'share', '{:.1%}')]
      model_flops = row.get('model_flops') or 1.0
      cells += [_number(row, 'xla_flops', '{:.2f}', 1 / model_flops)]
      cells += [_number(row, 'copy_bound_seconds', '{:,.2f}', 1e3)]
      cells += [_number(row, 'temporary_bytes', '{:.1f}', 2**-30)]
    else:
      cells += [row.get('error') or row['skipped'], *[''] * 7]
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join([*lines, '', *parts(document)])


def _number(row, name, form, scale=1):
  return form.format(scale * row[name]) if row.get(name) else ''


def parts(document):
  """Yield a table of what takes which share of each step."""
  seconds = {}
  for row in document['rows']:
    if 'seconds' in row:
      of = seconds.setdefault(row['case'], {})
      of[row['variant']] = row['seconds'] / row['tokens']
  yield (
    '| model | forward | backward | optimizer | of these, attention | of'
    ' these, logits and loss | with reference attention | with chunked'
    ' attention | quarter batch | peer |'
  )
  yield '|---' * 10 + '|'
  differences = (
    ('forward', None),
    ('gradient', 'forward'),
    ('step', 'gradient'),
    ('step', 'no attention'),
    ('step', 'small vocabulary'),
    ('reference attention', None),
    ('chunked attention', None),
    ('quarter batch', None),
    ('peer', None),
  )
  for case, of in seconds.items():
    if 'step' not in of:
      continue
    cells = [case]
    for whole, less in differences:
      share = ''
      if whole in of and (less is None or less in of):
        share = f'{(of[whole] - of.get(less, 0.0)) / of["step"]:.0%}'
      cells.append(share)
    yield '| ' + ' | '.join(cells) + ' |'
