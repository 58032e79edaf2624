"""What ``fq-tvm run`` does to the tensors of a file.

In the order of use: ``files``, ``parameters`` (scales and zero points from data), ``report`` (how good and how fast).
"""
