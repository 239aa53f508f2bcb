"""Speed of the neuron, of a training step and of attacks, beside the peers in the same run."""
