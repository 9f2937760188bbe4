"""Train a network of fastfcn_pl in a plain PyTorch loop: `python examples/plain_torch.py data/CamVid [epochs]`."""

import sys

import torch
from torch.nn import functional as F

import fastfcn_pl

torch.manual_seed(0)
data = fastfcn_pl.create_datamodule("camvid", root=sys.argv[1])
model = fastfcn_pl.create_model("fastfcn_efficientnet_lite0", num_classes=data.spec.num_classes, neck="jpu_128")
mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.backbone.mean, model.backbone.std))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
loader = data.train_dataloader()

for epoch in range(int(sys.argv[2]) if len(sys.argv) > 2 else 14):
    loader.sampler.set_epoch(epoch)
    for batch in loader:
        logits = model((batch["image"] / 255 - mean) / std).logits
        logits = F.interpolate(logits, batch["target"].shape[-2:], mode="bilinear", align_corners=model.align_corners)
        loss = F.cross_entropy(logits, batch["target"].long(), ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}: loss {loss.item():.3f}")

print(f"mIoU {fastfcn_pl.evaluate(model, data)['mIoU']:.3f}")
