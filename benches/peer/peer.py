"""The same work in plain PyTorch: what `cargo xtask bench --peer` runs beside `tessera bench ops`.

Prints one line of JSON per case: {"case": ..., "ms": ..., "runs": ..., "mib": ...}, the median of runs that take about
a second, and the most memory held meanwhile.
The modules are written from the papers' descriptions, with the shapes of TokenBridge-L and of the KL-16 autoencoder,
and use what PyTorch offers at its fastest in eager mode (scaled_dot_product_attention, inference_mode).
"""

import argparse
import json
import math
import time

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A pre-norm transformer block: x + attn(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, seq, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, seq, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, seq, width)
        x = x + self.proj(y)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class HalfLinear(nn.Module):
    """f32 in and out, bf16 between, as under autocast."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs).bfloat16()

    def forward(self, x):
        return self.linear(x.bfloat16()).float()


class Experts(nn.Module):
    """Four experts of each token, unevenly loaded, each expert's tokens gathered, and their gated outputs added."""

    def __init__(self, width, experts, tokens):
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(approximate="tanh"), nn.Linear(width, width))
            for _ in range(experts)
        )
        self.gates = nn.Parameter(torch.randn(tokens, experts))
        routed = [[] for _ in range(experts)]
        for token in range(tokens):
            chosen = set()
            for choice in range(4):
                draw = ((4 * token + choice) * 0x9E3779B9 & 0xFFFFFFFF) >> 16
                expert = experts * draw * draw >> 32
                while expert in chosen:
                    expert = (expert + 1) % experts
                chosen.add(expert)
            for expert in chosen:
                routed[expert].append(token)
        self.routed = [torch.tensor(tokens) for tokens in routed]

    def forward(self, x):
        y = torch.zeros_like(x)
        for index, (expert, tokens) in enumerate(zip(self.experts, self.routed)):
            out = expert(x.index_select(0, tokens)) * self.gates[tokens, index].unsqueeze(1)
            y.index_add_(0, tokens, out)
        return y


class HeadBlock(nn.Module):
    """A block of TokenBridge's head, one dimension at a time: adaLN, causal attention against a cache, q/k norm."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, size = heads, width // heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.q_norm, self.k_norm = nn.LayerNorm(size, eps=1e-6), nn.LayerNorm(size, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.ada = nn.Linear(width, 6 * width)

    def forward(self, x, cond, cache):
        tokens, width = x.shape
        shift1, scale1, gate1, shift2, scale2, gate2 = self.ada(F.silu(cond)).chunk(6, dim=-1)
        y = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(y).view(tokens, 3, self.heads, 1, width // self.heads).unbind(1)
        q, k = self.q_norm(q), self.k_norm(k)
        if cache:
            k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
        cache[:] = [k, v]
        x = x + gate1 * self.proj(F.scaled_dot_product_attention(q, k, v).reshape(tokens, width))
        y = self.norm2(x) * (1 + scale2) + shift2
        return x + gate2 * self.fc2(F.gelu(self.fc1(y)))


class Head(nn.Module):
    """All dimensions of some tokens, drawn one after the other."""

    def __init__(self, width, heads, depth, dims, levels):
        super().__init__()
        self.blocks = nn.ModuleList(HeadBlock(width, heads) for _ in range(depth))
        self.times = nn.Parameter(0.02 * torch.randn(dims, width))
        self.norm, self.final = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 2 * width)
        self.tables = nn.ModuleList(nn.Embedding(levels, width) for _ in range(dims))
        self.logits = nn.ModuleList(nn.Linear(width, levels) for _ in range(dims))

    def forward(self, z):
        x, caches = z, [[] for _ in self.blocks]
        for dim, logits in enumerate(self.logits):
            cond = z + self.times[dim]
            for block, cache in zip(self.blocks, caches):
                x = block(x, cond, cache)
            scale, shift = self.final(F.silu(cond)).chunk(2, dim=-1)
            y = F.layer_norm(self.norm(x), x.shape[-1:], eps=1e-6) * (1 + scale) + shift
            drawn = torch.multinomial(logits(y).softmax(-1), 1).squeeze(1)
            x = self.tables[dim](drawn) + z
        return x


class Resnet(nn.Module):
    """x + conv2(silu(norm2(conv1(silu(norm1(x))))))."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, inputs, 1e-6), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(32, outputs, 1e-6), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x):
        y = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class Attend(nn.Module):
    """Attention over the pixels, one head."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.GroupNorm(32, width, 1e-6)
        self.q, self.k, self.v, self.out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x):
        y = self.norm(x)
        q, k, v = (f(y).flatten(2).transpose(1, 2).unsqueeze(1) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)
        return x + self.out(y.reshape(x.shape))


class Down(nn.Module):
    """Halves the sides, padding below and on the right."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


WIDTHS, LATENTS = [128, 128, 256, 256, 512], 16


def middle(width):
    return [Resnet(width, width), Attend(width), Resnet(width, width)]


def kl16_encoder():
    layers, width = [nn.Conv2d(3, WIDTHS[0], 3, padding=1)], WIDTHS[0]
    for level, wide in enumerate(WIDTHS):
        lowest = level == len(WIDTHS) - 1
        for inputs in (width, wide):
            layers += [Resnet(inputs, wide)] + ([Attend(wide)] if lowest else [])
        layers += [] if lowest else [Down(wide)]
        width = wide
    layers += middle(width) + [nn.GroupNorm(32, width, 1e-6), nn.SiLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, 2 * LATENTS, 3, padding=1), nn.Conv2d(2 * LATENTS, 2 * LATENTS, 1))


def kl16_decoder():
    width = WIDTHS[-1]
    layers = [nn.Conv2d(LATENTS, LATENTS, 1), nn.Conv2d(LATENTS, width, 3, padding=1)] + middle(width)
    for level, wide in reversed(list(enumerate(WIDTHS))):
        for inputs in (width, wide, wide):
            layers += [Resnet(inputs, wide)] + ([Attend(wide)] if wide == WIDTHS[-1] else [])
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(wide, wide, 3, padding=1)] if level else []
        width = wide
    return nn.Sequential(*layers, nn.GroupNorm(32, width, 1e-6), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1))


class Backbone(nn.Module):
    """MAR's encoder over the known tokens and decoder over all, as TokenBridge has them; no token embedding twice."""

    def __init__(self, seq, buffer, dims, encoder, decoder):
        super().__init__()
        (width, depth, heads), (wide, deep, wide_heads) = encoder, decoder
        self.buffer, self.seq = buffer, seq
        self.project, self.norm = nn.Linear(dims, width), nn.LayerNorm(width, eps=1e-6)
        self.positions = nn.Parameter(0.02 * torch.randn(1, buffer + seq, width))
        self.encoder = nn.Sequential(*(self.block(width, heads) for _ in range(depth)))
        self.encoder_norm, self.embed = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, wide)
        self.mask = nn.Parameter(0.02 * torch.randn(1, 1, wide))
        self.decoder_positions = nn.Parameter(0.02 * torch.randn(1, buffer + seq, wide))
        self.decoder = nn.Sequential(*(self.block(wide, wide_heads) for _ in range(deep)))
        self.decoder_norm = nn.LayerNorm(wide, eps=1e-6)

    def block(self, width, heads):
        return Block(width, heads)

    def forward(self, known, classes, wanted):
        """Features of the first `wanted` tokens, of `[batch, known, dims]` at the last places and `[batch, width]`."""
        hidden = self.seq - known.shape[1]
        x = torch.cat([classes.unsqueeze(1).expand(-1, self.buffer, -1), self.project(known)], dim=1)
        places = torch.cat([self.positions[:, : self.buffer], self.positions[:, self.buffer + hidden :]], dim=1)
        x = self.embed(self.encoder_norm(self.encoder(self.norm(x + places))))
        masks = self.mask.expand(len(x), hidden, -1).to(x.dtype)
        x = torch.cat([x[:, : self.buffer], masks, x[:, self.buffer :]], dim=1) + self.decoder_positions
        return self.decoder_norm(self.decoder(x))[:, self.buffer : self.buffer + wanted]


def generator(half):
    """TokenBridge-L, and a step of it with guidance: `predicted` more tokens given `known` ones."""
    backbone, head = Backbone(256, 64, 16, (1024, 16, 16), (1024, 16, 16)), Head(1024, 16, 4, 16, 64)
    if half:
        backbone, head = backbone.bfloat16(), head.bfloat16()
    dtype = torch.bfloat16 if half else torch.float32

    def step(known, predicted):
        tokens, classes = torch.randn(2, known, 16, dtype=dtype), torch.randn(2, 1024, dtype=dtype)
        given, alone = backbone(tokens, classes, predicted)
        return head(alone + (given - alone) * 3.1)

    return step


def picture_step(half):
    """The mean of the 64 steps of a picture of TokenBridge-L with guidance: 93 of 256 tokens are known, 4 are drawn."""
    step = generator(half)
    return inference(lambda: step(93, 4))


def whole_picture(half):
    """All 64 steps, MAR's cosine, and the decoder in f32 with channels last."""
    step, decoder = generator(half), kl16_decoder().to(memory_format=torch.channels_last)

    def call():
        masked = 256
        for done in range(1, 65):
            left = max(1, min(masked - 1, int(256 * math.cos(math.pi / 2 * done / 64)))) if done < 64 else 0
            step(256 - masked, masked - left)
            masked = left
        return decoder(torch.randn(1, 16, 16, 16).contiguous(memory_format=torch.channels_last))

    return inference(call)


class Dropping(Block):
    """A block with dropout of probabilities and after both projections."""

    def forward(self, x):
        batch, seq, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, seq, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1).transpose(1, 2).reshape(batch, seq, width)
        x = x + F.dropout(self.proj(y), 0.1)
        return x + F.dropout(self.fc2(F.dropout(F.gelu(self.fc1(self.norm2(x))), 0.1)), 0.1)


class DroppingBackbone(Backbone):
    def block(self, width, heads):
        return Dropping(width, heads)


class TrainedHeadBlock(HeadBlock):
    """All steps of a token at once, causally."""

    def forward(self, x, cond):
        tokens, steps, width = x.shape
        shift1, scale1, gate1, shift2, scale2, gate2 = self.ada(F.silu(cond)).chunk(6, dim=-1)
        y = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(y).view(tokens, steps, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)
        x = x + gate1 * F.dropout(self.proj(y.transpose(1, 2).reshape(tokens, steps, width)), 0.1)
        y = self.norm2(x) * (1 + scale2) + shift2
        return x + gate2 * F.dropout(self.fc2(F.dropout(F.gelu(self.fc1(y)), 0.1)), 0.1)


class Trained(nn.Module):
    """The generator and its loss: cross-entropy of every dimension, `per_step` of them given the same context."""

    def __init__(self, seq, buffer, dims, levels, per_step, encoder, decoder, head):
        super().__init__()
        (width, depth, heads), self.per_step = head, per_step
        self.backbone = DroppingBackbone(seq, buffer, dims, encoder, decoder)
        self.classes = nn.Embedding(1000, encoder[0])
        self.condition = nn.Linear(decoder[0], width)
        self.times = nn.Parameter(0.02 * torch.randn(dims // per_step, width))
        self.blocks = nn.ModuleList(TrainedHeadBlock(width, heads) for _ in range(depth))
        self.norm, self.final = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 2 * width)
        self.tables = nn.Parameter(0.02 * torch.randn(dims, levels, width))
        self.weight = nn.Parameter(0.02 * torch.randn(dims, width, levels))
        self.bias = nn.Parameter(torch.zeros(dims, 1, levels))

    def forward(self, tokens, labels, masked, trained):
        batch, _, dims = tokens.shape
        z = self.backbone(tokens[:, masked:].float(), self.classes(labels), trained)
        targets = tokens[:, :trained].reshape(-1, dims)
        c = self.condition(z.reshape(len(targets), -1))
        cond = c.unsqueeze(1) + self.times
        before = torch.stack([self.tables[dim][targets[:, dim]] for dim in range(dims)], dim=1)
        before = before.view(len(targets), -1, self.per_step, c.shape[-1]).sum(2)[:, :-1]
        x = torch.cat([c.unsqueeze(1), before + c.unsqueeze(1)], dim=1)
        for block in self.blocks:
            x = block(x, cond)
        scale, shift = self.final(F.silu(cond)).chunk(2, dim=-1)
        y = F.layer_norm(self.norm(x), x.shape[-1:], eps=1e-6) * (1 + scale) + shift
        y = y.repeat_interleave(self.per_step, dim=1).transpose(0, 1)
        logits = torch.baddbmm(self.bias, y, self.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.t().flatten())


def train_step(half, side, batch, *sizes):
    """Three quarters of the tokens are masked, the loss is on a quarter of those; AdamW and averaged weights."""
    seq, dims, levels = side * side, sizes[1], sizes[2]
    model = Trained(seq, *sizes)
    parameters = list(model.parameters())
    average = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.02, fused=True)
    tokens = torch.randint(levels, (batch, seq, dims))
    labels, masked = torch.arange(batch), 3 * seq // 4

    def call():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(tokens, labels, masked, masked // 4)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 3.0, foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 0.001)

    return call


DEMO = (8, 32, 8, 32, 16, 4, (192, 4, 6), (192, 6, 6), (128, 3, 4))
WIDE = (16, 4, 64, 16, 64, 1, (1024, 8, 16), (1024, 8, 16), (1024, 2, 16))


def inference(function):
    def call(*inputs):
        with torch.inference_mode():
            return function(*inputs)

    return call


def training(module, x):
    """Forward and backward, the gradient of x included."""

    def call():
        module.zero_grad(set_to_none=True)
        x.grad = None
        module(x).sum().backward()

    x.requires_grad_()
    return call


def cases():
    """Name -> a function without arguments that makes the work, so that no case's memory outlives it."""
    r = torch.randn

    def run(make_module, *shapes):
        def make():
            module, inputs = make_module(), [r(*shape) for shape in shapes]
            return lambda: inference(module)(*inputs)

        return make

    def channels_last(module, picture):
        """What oneDNN convolves fastest."""
        return module.to(memory_format=torch.channels_last), picture.contiguous(memory_format=torch.channels_last)

    def on_picture(make_module, shape):
        def make():
            module, picture = channels_last(make_module(), r(*shape))
            return lambda: inference(module)(picture)

        return make

    def train(make_module, shape):
        return lambda: training(make_module(), r(*shape))

    def plain(function):
        return lambda: function

    def normed_conv():
        return nn.Sequential(nn.GroupNorm(32, 128, 1e-6), nn.SiLU(), nn.Conv2d(128, 128, 3, padding=1))

    def depthwise():
        return nn.Sequential(nn.ReLU6(), nn.Conv2d(96, 96, 3, padding=1, groups=96), nn.ReLU6())

    def experts():
        return Experts(1024, 32, 4096)

    def mlp():
        return nn.Sequential(nn.Linear(1024, 4096), nn.GELU(approximate="tanh"), nn.Linear(4096, 1024))

    image, tokens, hidden = (1, 128, 256, 256), (8, 320, 1024), (2560, 4096)
    attention = plain(F.scaled_dot_product_attention)
    return {
        "matmul-1024": run(plain(torch.matmul), (1024, 1024), (1024, 1024)),
        "matmul-4096x1024x4096": run(plain(torch.matmul), (4096, 1024), (1024, 4096)),
        "linear+gelu-2560x1024x4096": run(
            lambda: nn.Sequential(nn.Linear(1024, 4096), nn.GELU()), (2560, 1024)
        ),
        "linear-4x1024x4096": run(lambda: nn.Linear(1024, 4096), (4, 1024)),
        "linear-bf16-2560x1024x4096": run(lambda: HalfLinear(1024, 4096), (2560, 1024)),
        "linear-bf16-4x1024x4096": run(lambda: HalfLinear(1024, 4096), (4, 1024)),
        "block-forward": run(lambda: Block(1024, 16), tokens),
        "block-forward+backward": train(lambda: Block(1024, 16), tokens),
        "experts-4in32-forward": run(experts, (4096, 1024)),
        "experts-4in32-forward+backward": train(experts, (4096, 1024)),
        "mlp-4096x1024x4096-forward": run(mlp, (4096, 1024)),
        "mlp-4096x1024x4096-forward+backward": train(mlp, (4096, 1024)),
        "attention-16x1024x64": run(attention, *[(1, 16, 1024, 64)] * 3),
        "attention-8x16x320x64": run(attention, *[(8, 16, 320, 64)] * 3),
        "gelu-2560x4096": run(plain(F.gelu), hidden),
        "silu-128x256x256": run(plain(F.silu), image),
        "layer-norm-2560x1024": run(lambda: nn.LayerNorm(1024, eps=1e-6), (2560, 1024)),
        "group-norm+silu-128x256x256": run(lambda: nn.Sequential(nn.GroupNorm(32, 128, 1e-6), nn.SiLU()), image),
        "conv-128x256x256": on_picture(lambda: nn.Conv2d(128, 128, 3, padding=1), image),
        "group-norm+silu+conv-128x256x256": on_picture(normed_conv, image),
        "conv-forward+backward": lambda: training(*channels_last(nn.Conv2d(128, 128, 3, padding=1), r(*image))),
        "depthwise-8x96x112x112": on_picture(depthwise, (8, 96, 112, 112)),
        "head-4-tokens": run(lambda: Head(1024, 16, 4, 16, 64), (4, 1024)),
        "head-64-tokens": run(lambda: Head(1024, 16, 4, 16, 64), (64, 1024)),
        "kl16-encode": on_picture(kl16_encoder, (1, 3, 256, 256)),
        "kl16-decode": on_picture(kl16_decoder, (1, 16, 16, 16)),
    }


def models():
    """Steps of whole models, measured only if they are asked for."""

    def blocks(*shape):
        def make():
            x, module = torch.randn(*shape, 1024), nn.Sequential(*(Block(1024, 16) for _ in range(4)))
            return lambda: inference(module)(x)

        return make

    return {
        "picture-step": lambda: picture_step(False),
        "picture-step-bf16": lambda: picture_step(True),
        "whole-picture": lambda: whole_picture(False),
        "whole-picture-bf16": lambda: whole_picture(True),
        "train-step-demo": lambda: train_step(False, *DEMO),
        "train-step-demo-bf16": lambda: train_step(True, *DEMO),
        "train-step-1024": lambda: train_step(False, *WIDE),
        "train-step-1024-bf16": lambda: train_step(True, *WIDE),
        "blocks-batch-1": blocks(1, 320),
        "blocks-batch-2": blocks(2, 320),
        "blocks-batch-4": blocks(4, 320),
        "blocks-batch-8": blocks(8, 320),
        "blocks-tokens-64": blocks(1, 64),
        "blocks-tokens-256": blocks(1, 256),
        "blocks-tokens-1024": blocks(1, 1024),
    }


def peak_mib():
    """The most memory that the process has held since `forget_peak`."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))


def forget_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def measure(work, seconds, once):
    """The median of some runs after one that is not counted, or the first run of what takes minutes."""
    least = 1 if once else 3
    if not once:
        work()
    forget_peak()
    times, start = [], time.perf_counter()
    while len(times) < least or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        result = work()
        times.append(1e3 * (time.perf_counter() - before))
        del result
    return {"ms": sorted(times)[len(times) // 2], "runs": len(times), "mib": peak_mib()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help="names or parts of names; all but whole models without")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=1.0, help="for each case")
    parser.add_argument("--list", action="store_true", help="the names alone")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    known = {**cases(), **(models() if args.cases else {})}
    for name, make in known.items():
        if args.cases and not any(part in name for part in args.cases):
            continue
        found = {} if args.list else measure(make(), args.seconds, once=name.startswith("whole-"))
        print(json.dumps({"case": name, **found}), flush=True)


if __name__ == "__main__":
    main()
