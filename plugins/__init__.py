"""The built-in formats, one file each. They come in through the same entry points as a third party's."""
