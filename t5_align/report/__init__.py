"""Tables, plots and a page from result files alone."""

from t5_align.report.page import write_page as write_page
from t5_align.report.plot import write_plot as write_plot
from t5_align.report.show import show as show
from t5_align.report.show import show_calibration as show_calibration
from t5_align.report.table import make_tables as make_tables
