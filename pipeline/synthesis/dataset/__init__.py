"""The folder of a synthetic data set: data, rejections, card."""
