"""Networks of this project. The file's name is the network's name in a sweep file.

A file has `build(shape, classes, **options) -> nn.Module` with `shape` = (channels, height, width).
It returns a plain module from normalised images (B, C, H, W) to logits (B, classes). Options are
keyword arguments with a default. One that defaults to a whole number is a size and must be at
least 1.

Call every step as a module, and give the modules good names: they become the names of the hidden
spaces (see `tasks.parts.models.stages`) and of the weights in a checkpoint.
"""
