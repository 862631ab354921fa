"""A neuromorphic chip: layers mapped to cores, spikes as messages, a barrier that ends each time step.

chip        what a core has room for, and what its events cost
activity    events, messages and spikes of one sample
splitting   populations of neurons split until each part fits a core
cores       parts on cores: what each core does in a time step
placement   where on the mesh each core stands, for few hops
contention  one time step, message by message
run         the time steps of a network: time and energy
timeline    the run as tasks, one for each core and step
"""

from pararev_hw.costmodels.neuromorphic.run import Run as Run
from pararev_hw.costmodels.neuromorphic.run import run as run
