"""Models that people have: files of Keras 1, 2 and 3, SavedModel folders, KerasHub's presets.

Row 2.
"""
