"""The block-dependency graph: totals, spikes, the critical path, liveness, and its file."""

from pararev_hw.graph.critical import critical_path as critical_path
from pararev_hw.graph.critical import op_parallelism as op_parallelism
from pararev_hw.graph.files import dumps as dumps
from pararev_hw.graph.files import from_document as from_document
from pararev_hw.graph.files import is_block_graph as is_block_graph
from pararev_hw.graph.files import load as load
from pararev_hw.graph.files import read_json as read_json
from pararev_hw.graph.files import save as save
from pararev_hw.graph.files import to_document as to_document
from pararev_hw.graph.files import totals as totals
from pararev_hw.graph.layers import layers as layers
from pararev_hw.graph.sites import layer_of_op as layer_of_op
from pararev_hw.graph.spikes import assumed as assumed
from pararev_hw.graph.spikes import attach as attach
from pararev_hw.graph.spikes import may_spike as may_spike
from pararev_hw.graph.spikes import spiking_layers as spiking_layers
