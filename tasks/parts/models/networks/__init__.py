"""Networks of our own: one file each, and the file's name is the network's name in a sweep file.

A file here exports `build(shape, classes, **options) -> nn.Module` with `shape` = (channels, height, width): a plain
module that takes normalised images (B, C, H, W) and ends in logits (B, classes). Options are keyword arguments with a
default; those that default to a whole number are sizes and must be at least 1. Name the submodules well and call each
step as a module of its
own: the names become the names of the hidden spaces (see `tasks.parts.models.stages`) and of the weights in a checkpoint.
"""
