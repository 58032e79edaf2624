"""Bytes and JSON on disk: built kernels and tuned schedules.  Knows neither TVM nor what a kernel computes."""
