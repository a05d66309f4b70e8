"""The data sets: one file each, found on disk; the file's name is the name in the YAML, and nothing is registered.

A data set's file has three functions. `root` is the data root, or the folder given after the name
(`imagefolder:<folder>`).

`read(split, root)` with split `"train"` or `"test"` returns (images, labels, classes): images as an array (N, C, H,
W) of uint8 or of floats in [0, 1], or, where there are many files, as a list of their paths, which are then decoded
to RGB a few at a time; labels as N integers; classes as the names that the labels number. The order of the images is
part of the data set: an example's id is its position in it. What cannot be read is a `UserError` that names the file.

`fingerprint(root)` returns a string that tells the content apart from any other, cheaply and without decoding. It
must not depend on where the root is mounted. It names the decoded copy in the cache and goes into the identity of
everything made from the data.

`check(root)` raises a `UserError`, one line that says which files are expected where, if the data is neither there
nor to be downloaded. It writes nothing and takes at most a few seconds.

A file that sets `EMBEDDED = True` needs no files and is small: it is kept in memory and not in the cache of decoded
images.

A user's own data set needs no file here: `package.module:function` in the YAML calls `function(split, root)`, which
returns what `read` does. Its fingerprint is that name and a hash of the module's source; if the data that the
function reads changes, change something in the module, for instance a version number.
"""
