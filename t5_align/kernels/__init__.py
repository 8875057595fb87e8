"""Attention kernels behind one function, `attend`."""

from t5_align.kernels.attend import attend as attend
from t5_align.kernels.statistics import SoftmaxStatistics as SoftmaxStatistics
