"""Pretraining of small Swin backbones on labelled images."""
