"""The verbs of the command line in Python, each with exact keywords: `import pararev_hw as ph`.

options   what a step is like            steps     a network's step as a graph
plans     schedules, costs, real runs    studies   reports, comparisons, sweeps
machines  devices, calibration, validation         files     every result written and read back
"""
