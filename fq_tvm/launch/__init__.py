"""From arguments to a call: what was handed over, which kernel serves it, and how it is run."""
