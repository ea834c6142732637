"""What a file in HDF5 may hold: arrays of numbers, all of them in the file itself."""

import h5py


def check_hdf5(file, size, *, expansion=100):
    """Returns the datasets of an open file, none of which was read.

    HDF5 can link to other files, take a dataset from any bytes on the disk, and declare arrays
    much larger than the file. A file of weights needs none of it.

    Args:
        file: An `h5py.File`.
        size: Bytes of the file.
        expansion: How many times larger than the file the arrays may be; compressed ones are.

    Raises:
        ValueError: for links, datasets outside the file, other types than numbers, and arrays
            larger than allowed.
    """
    datasets, groups, seen = [], [file], {_address(file)}
    left = expansion * size
    while groups:
        group = groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name} is a link to another place")
            item = group[name]
            if _address(item) in seen:
                raise ValueError(f"{item.name} is there twice")
            seen.add(_address(item))
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                left -= _checked_bytes(item)
                if left < 0:
                    raise ValueError("its arrays are larger than the file")
                datasets.append(item)
    return datasets


def float_like(dtype):
    """Whether a type, of NumPy or a text, is one of floats: NumPy has no kind for bfloat16."""
    return "float" in str(dtype)


def _address(item):
    return h5py.h5o.get_info(item.id).addr


def _checked_bytes(dataset):
    """Returns the bytes that a dataset has in memory; raises for what is no array of numbers."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name} is in another file")
    if dataset.dtype.kind not in "biufSV" or dataset.dtype.fields is not None:
        raise ValueError(f"{dataset.name} holds no numbers")
    if dataset.shape is None:
        raise ValueError(f"{dataset.name} is empty")
    return dataset.size * dataset.dtype.itemsize
