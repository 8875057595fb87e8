"""Results computed ahead of their use, in order, in processes or a thread.

Synopsis:

    for batch in map_ahead(make_batch, range(1000), workers=8):
      ...      # the same batches as of map(make_batch, range(1000))
"""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import itertools
import multiprocessing
from typing import TypeVar

_T = TypeVar('_T')
_R = TypeVar('_R')
# Results that wait, for each worker.
_DEPTH = 4


def map_ahead(
  function: Callable[[_T], _R], items: Iterable[_T], workers: int
) -> Iterator[_R]:
  """Yield `function` of each item, in order.

  Args:
    function: is pickled with every item where there are workers.
    items: read no further than four a worker ahead.
    workers: processes; 0 is a thread of this one. A script that asks for
      processes runs under `if __name__ == '__main__'`: each imports it.
  """
  if workers:
    # Not forked: JAX has threads, which a fork would cut off mid-work.
    context = multiprocessing.get_context('spawn')
    pool = futures.ProcessPoolExecutor(workers, mp_context=context)
  else:
    pool = futures.ThreadPoolExecutor(1)
  rest = iter(items)
  ahead: collections.deque[futures.Future[_R]] = collections.deque()
  with pool:
    try:
      for item in itertools.islice(rest, _DEPTH * max(workers, 1)):
        ahead.append(pool.submit(function, item))
      while ahead:
        yield ahead.popleft().result()
        for item in itertools.islice(rest, 1):
          ahead.append(pool.submit(function, item))
    finally:
      pool.shutdown(cancel_futures=True)
