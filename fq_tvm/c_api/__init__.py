"""Kernels as a C library: a header, a source and objects for programs that have neither Python nor TVM."""
