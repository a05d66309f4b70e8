"""The data sets, one file each. The name of the file is the name in the YAML.

The files are found on disk; nothing is registered. A file has three functions. `root` is the data
root, or the folder that follows the name (`imagefolder:<folder>`).

`read(split, root)` with split `"train"` or `"test"` returns (images, labels, classes). Images are
an array (N, C, H, W) of uint8 or of floats in [0, 1]. If there are many files, they are a list of
paths instead, and are decoded to RGB a few at a time. Labels are N integers, the places of the
names in `classes`. The order of the images is part of the data set: the id of an example is its
place in it. If something cannot be read, a `UserError` names the file.

`fingerprint(root)` returns a text that tells the content from any other, cheaply and without
decoding. It must not depend on where the root is mounted. The decoded copy in the cache is named by
it, and it is part of the identity of everything made from the data.

`check(root)` raises a `UserError` if the data is not there and cannot be downloaded: one line that
says which files are expected where. It writes nothing and takes at most a few seconds.

A file with `EMBEDDED = True` is for a small data set that needs no files. Its images are kept in
memory, and not in the cache of decoded images.

A user's own data set needs no file here: for `package.module:function` in the YAML,
`function(split, root)` is called and returns what `read` returns. The fingerprint is that name and
a hash of the module's source. When the data that the function reads changes, change something in
the module, such as a version number.
"""
