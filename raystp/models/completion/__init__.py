"""Completion of sparse spots: values for the zeros of a section, for training labels only.

A zero count may be a molecule that was missed. Models can be trained on completed labels; scores are always taken on
measured counts. Three methods: the adaptive median, a linear regression, and SpaCKLE.
"""
