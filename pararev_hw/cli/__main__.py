from pararev_hw.cli import script

script()
