"""Kernels in C, compiled on the machine that runs them, and in Triton; each has a fallback in PyTorch operators."""
