"""Sweeps: many configurations of a device and a network, the best of them, and what matters.

    spec       the YAML file, checked            expressions, parameters, objectives
    variants   networks to compare, traced       problem     rows in, objectives out
    engine     one network, many configurations  replay, memory_columns, roofline_columns
    workers    processes and clusters            search      NSGA-II and TPE
    store      parts, lock, results.parquet      summary     what is kept of a part's rows
    analysis   Pareto front, sensitivity

What a configuration's numbers mean is said in `engine`.
"""

from pararev_hw.sweeps.rows import recommended_row as recommended_row
from pararev_hw.sweeps.rows import row_study as row_study
from pararev_hw.sweeps.run import run as run
from pararev_hw.sweeps.spec import Sweep as Sweep
from pararev_hw.sweeps.spec import load as load
