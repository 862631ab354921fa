"""How much of anything an input may ask for. Beyond these a value is a slip or an attack, and is refused in one line.

They stand in one place so that no two readers of the same thing differ, and so that they can be checked together.
"""

from __future__ import annotations

# Files, in bytes
DEVICE_FILE_BYTES = 1 << 20  # a few KiB of YAML
SWEEP_FILE_BYTES = 1 << 20  # a few KiB of YAML
SOURCE_BYTES = 16 << 20  # of the Python file of a network
PROFILE_BYTES = 64 << 20  # raw samples included, a profile takes a few MiB
GRAPH_FILE_BYTES = 1 << 30
TASK_GRAPH_BYTES = 256 << 20  # a million tasks with three edges each, as JSON
NETWORK_FILE_BYTES = 2 << 30  # .onnx and .nir, and the arrays in them or beside them
INPUT_BYTES = 2 << 30  # inputs on which spikes are counted
YAML_NODES = 100_000  # of a document with its aliases written out

# Numbers
COUNT = (1 << 63) - 1  # of anything, and of all bytes together: what 64 bits hold
NUMBER = 1e30  # of synaptic operations and MACs per sample
INPUT_ELEMENTS = 1 << 40  # of one input
CONSTANT_ELEMENTS = 1 << 26  # of a constant that an ONNX file has computed: more is a request for memory
WIDTH = 1e3  # factor on a zoo network's channels
LANES = 1024
THREADS = 128  # or streams that really run tasks
MANY_TASKS = 10_000  # of a step: its study's memory is told beforehand, its report is by column and compressed
TRACE_BYTES = 6 << 10  # that a step's graph and its file need for each operation: 4 KiB were measured
STUDY_BYTES = 24 << 10  # that a study of a step and its report need for each task
TIMES = 50_000_000  # tasks x lanes of a task graph: what a gigabyte holds
NETWORK_NODES = 200_000  # of an ONNX file, its functions written out
NIR_DEPTH = 16  # of graphs in graphs
MODULE_DEPTH = 32  # of module paths

# Sweeps
ROWS = 100_000_000
NETWORKS = 500  # of one sweep: each is traced
EXPRESSION_CHARACTERS = 1000
ONE_FILE_ROWS = 5_000_000  # that are gathered in one results.parquet: of more it is a folder of their parts
CSV_ROWS = 2_000_000  # that are written as text too: more are in results.parquet alone
WATCHED_FOLDERS = 1000  # below a network's file, in which files that are read are noticed
MANY_FRONT_ROWS = 100_000  # of a sweep: the memory of its analysis is told beforehand
FRONT_BYTES = 2 << 10  # that the analysis needs for each configuration on a front: 1.7 KiB were measured

# Searches
TILINGS = 1 << 22  # tilings of one product that are compared
TILES = 4096  # tile sizes along one loop
