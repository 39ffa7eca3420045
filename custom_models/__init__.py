"""Segmentation networks as their papers have them, one file an architecture.

`from custom_models import enet; enet.build(21)` gives an `nn.Module` that maps images
(N, 3, H, W) to logits (N, 21, H, W). The attribute `input_multiple` of a network says which
heights and widths it takes.
"""
