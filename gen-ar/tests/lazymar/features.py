"""Writes the features that LazyMAR's code computes on a small model, whose weights a formula gives: of every step those
to draw from, of two pictures with their class, then without. The tests of gen-ar/src/lazy.rs read them.

usage: python3 features.py CHECKOUT features.f32, where CHECKOUT is github.com/feihongyan1/LazyMAR at 6c65efa; PyTorch,
scipy and tqdm must be installed
"""

import struct
import sys
import types
from functools import partial

import numpy as np
import torch
from torch import nn


class Mlp(nn.Module):
    """timm's, which the models import."""

    def __init__(self, in_features, hidden_features, act_layer, drop):
        super().__init__()
        self.fc1, self.act = nn.Linear(in_features, hidden_features), act_layer()
        self.fc2 = nn.Linear(hidden_features, in_features)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


layers = types.ModuleType("timm.layers")
layers.Mlp, layers.DropPath, layers.use_fused_attn = Mlp, nn.Identity, lambda: False
sys.modules.update({"timm": types.ModuleType("timm"), "timm.layers": layers})
losses = types.ModuleType("models.diffloss_factory")
losses.create_diffloss = lambda **_: nn.Identity()
sys.modules["models.diffloss_factory"] = losses
sys.path.insert(0, sys.argv[1])
from models.mar_cache import MAR  # noqa: E402

WIDTH, HEADS, DEPTH, DIMS, CLASSES, SEQ, STEPS = 16, 2, 14, 4, 3, 256, 64


def uniform(name, size):
    """`size` numbers in -0.5..0.5."""
    state = np.uint32(2166136261)
    with np.errstate(over="ignore"):
        for byte in name.encode():
            state = (state ^ np.uint32(byte)) * np.uint32(16777619)
        x = state + np.arange(size, dtype=np.uint32) * np.uint32(2654435761)
        for factor in (0x7FEB352D, 0x846CA68B):
            x = (x ^ (x >> np.uint32(16))) * np.uint32(factor)
        x ^= x >> np.uint32(16)
    return (x.astype(np.float64) / 2**32 - 0.5).astype(np.float32)


def value(name, shape):
    """A parameter."""
    u = uniform(name, int(np.prod(shape))).reshape(shape)
    if name.endswith("weight") and len(shape) == 2 and name != "class_emb.weight":
        # Strong attention: values change so much that rounding does not decide which rows are pruned.
        strength = 3 if "qkv" in name else 1
        return u * np.float32(strength * 2 * (3 / shape[1]) ** 0.5)
    if name.endswith("weight") and len(shape) == 1:
        return 1 + u * np.float32(0.5)
    return u * np.float32(2)


model = MAR(
    encoder_embed_dim=WIDTH, encoder_depth=DEPTH, encoder_num_heads=HEADS,
    decoder_embed_dim=WIDTH, decoder_depth=DEPTH, decoder_num_heads=HEADS,
    mlp_ratio=4, norm_layer=partial(nn.LayerNorm, eps=1e-6), vae_embed_dim=DIMS, class_num=CLASSES, lazy_mar=True,
).eval().double()
with torch.no_grad():
    for name, parameter in model.named_parameters():
        ours = {"diffusion_pos_embed_learned": "output_pos_embed"}.get(name, name)
        parameter.copy_(torch.from_numpy(value(ours, tuple(parameter.shape))))

torch.set_default_dtype(torch.double)
# Two pictures; as in the released sampler the last position of an order is drawn first.
orders = np.stack([np.argsort(uniform(f"path {i}", SEQ), kind="stable") for i in range(2)])
levels = np.floor((uniform("tokens", 2 * SEQ * DIMS) + np.float32(0.5)) * 64)
tokens = torch.from_numpy((levels.astype(np.float64) - 31.5) / 16).reshape(2, SEQ, DIMS)
labels = torch.tensor([1, 2])
caches, current = model.get_cache_dic(2, DEPTH, HEADS, WIDTH, torch.device("cpu"), True)
for cache in caches["enco_cache"].values():
    cache.update(k=cache["k"].double(), v=cache["v"].double())
current.update(depth=DEPTH, lazy_mar=True, device="cpu", num_iter=STEPS)
caches.update(start_step=5, fresh_t=9, prev_mask_to_pred=torch.zeros(4, SEQ))
masked, out = SEQ, []
for step in range(STEPS):
    left = int(np.floor(SEQ * np.cos(np.pi / 2 * (step + 1) / STEPS)))
    left = 0 if step + 1 == STEPS else max(1, min(masked - 1, left))
    mask, now = torch.zeros(2, SEQ), torch.zeros(2, SEQ)
    for image, order in enumerate(orders):
        mask[image, order[:masked]] = 1
        now[image, order[left:masked]] = 1
    mask, now = mask.repeat(2, 1), now.repeat(2, 1).bool()
    known = (tokens * (1 - mask[:2, :, None])).repeat(2, 1, 1)
    classes = torch.cat([model.class_emb(labels), model.fake_latent.repeat(2, 1)])
    caches["mask_to_pred"] = now
    full = model.global_force_fresh(caches, {"step": step})
    current.update(step=step, is_force_fresh=full, mask=mask.bool())
    with torch.no_grad():
        x = model.forward_mae_encoder(known.clone(), mask, classes, current, caches)
        z = model.forward_mae_decoder(x, mask, current, caches)
    caches["prev_mask_to_pred"] = now
    out.append(z[now.nonzero(as_tuple=True)].numpy().reshape(-1))
    masked = left
features = np.concatenate(out).astype("<f4")
open(sys.argv[2], "wb").write(features.tobytes())
