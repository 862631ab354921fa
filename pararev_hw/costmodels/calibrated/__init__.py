"""The calibrated cost model: what ops cost on a machine that was measured."""
