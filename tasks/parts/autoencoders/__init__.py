"""Autoencoders: one file each, and the file's name is the `kind` of an autoencoder in a sweep file.

```
class Options(Settings)                  the settings that it has beside those of all
def build(shape, bottleneck, options)    a `Coder` of standardised representations (B, *shape),
                                         with its initial weights
def check(recipe, options)               optional: refuses settings of all kinds that do not go with
                                         its own, by a `UserError` with a field of the options
VERSION                                  a whole number, raised by hand when its numbers change
```

`build` raises `UserError` with a field of the options, or `bottleneck`, for what does not fit the
shape.
"""
