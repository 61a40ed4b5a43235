"""Nets, a file each, and what they share: front ends, published checkpoints, ONNX sessions."""
