"""FastFCN (arXiv 1903.11816) on timm backbones: semantic segmentation with PyTorch Lightning and Hydra."""

__version__ = "0.1.0"
