"""`python -m pararev_hw`: the command line, where the script `pararev-hw` is not on the PATH."""

from pararev_hw.cli import script

script()
