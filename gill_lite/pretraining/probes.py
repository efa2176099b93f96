"""Pretraining stages `probes` and `trunk`: what reads attributes, and what LPIPS looks through."""

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate

from gill_lite.pretraining.loop import fit
from gill_lite.world.pictures import NUM_IMAGES, held_out, training_images, training_scene
from gill_lite.world.probes import Probes
from gill_lite.world.scene import ATTRIBUTES

PROBE_STEPS, TRUNK_STEPS, BATCH = 1_500, 900, 64
CLASSES = [len(values) for values in ATTRIBUTES.values()]


class TrunkClassifier(nn.Module):
    """torchvision's AlexNet features with attribute heads; LPIPS keeps the features."""

    def __init__(self):
        super().__init__()
        from torchvision.models import alexnet

        self.features = alexnet(weights=None).features
        self.heads = nn.ModuleDict({n: nn.Linear(256, len(v)) for n, v in ATTRIBUTES.items()})

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Pictures (B, 3, 64, 64) in 0..1 to logits (B, values) by attribute."""
        features = self.features(pictures * 2 - 1).flatten(1)  # (B, 256): 64 pixels leave 1x1
        return {name: head(features) for name, head in self.heads.items()}


def degraded(pictures: torch.Tensor, generator) -> torch.Tensor:
    """Noise, blur and shifted colours, each at random, so that imperfect pictures are read too."""
    b = pictures.shape[0]
    draw = torch.rand(b, 3, 1, 1, 1, generator=generator)  # (B, 3, 1, 1, 1)
    blurred = interpolate(avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear")
    x = torch.where(draw[:, 0] < 0.4, blurred, pictures)
    noise = torch.randn(x.shape, generator=generator) * 0.12 * draw[:, 1]
    tint = 1 + 0.1 * torch.randn(b, 3, 1, 1, generator=generator) * (draw[:, 2] < 0.5)
    return ((x + noise) * tint).clamp(0, 1)


def classification_loss(logits: dict, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over attributes; labels (B, 6)."""
    return sum(cross_entropy(v, labels[:, i]) for i, v in enumerate(logits.values())) / len(logits)


def _fit(name, module, work_dir, steps, seed, lr, device):
    pictures = training_images(work_dir)
    labels = torch.tensor([training_scene(i).labels() for i in range(NUM_IMAGES)])

    def loss_fn(step, generator):
        index = torch.randint(NUM_IMAGES, (BATCH,), generator=generator)
        x = degraded(torch.from_numpy(pictures[index.numpy()]).float() / 255, generator)
        return classification_loss(module(x.to(device)), labels[index].to(device))

    fit(
        name,
        module,
        loss_fn,
        work_dir,
        steps=steps,
        lr=lr,
        seed=seed,
        device=device,
        average=0.99,
        measure=lambda: accuracy(module, 200),
        measure_every=200,
    )
    return module


def accuracy(module, count: int = 1000, change=None) -> dict[str, float]:
    """Held-out accuracy by attribute on drawn pictures, or on `change(pictures)`."""
    module.eval()
    scenes, pictures = held_out(count, "any", key="probe held out")
    pictures = change(pictures) if change else pictures
    labels = torch.tensor([scene.labels() for scene in scenes])
    with torch.no_grad():
        logits = module(pictures)
    module.train()
    return {
        name: round(float((v.argmax(1) == labels[:, i]).float().mean()), 4)
        for i, (name, v) in enumerate(logits.items())
    }


def train_probes(
    work_dir, out_dir, seed: int = 0, device: str = "cpu", steps: int = PROBE_STEPS
) -> dict:
    """Train, measure and save the attribute probes. Returns the measures."""
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    module = _fit("probes", Probes(), work_dir, steps, seed, 2e-3, device)
    save_file(module.state_dict(), out_dir / "model.safetensors")
    return {"steps": steps} | {f"drawn_{n}": v for n, v in accuracy(module).items()}


def train_trunk(work_dir, out_dir, seed: int = 0, device: str = "cpu") -> dict:
    """Train, measure and save the perceptual trunk (AlexNet features only)."""
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    module = _fit("trunk", TrunkClassifier(), work_dir, TRUNK_STEPS, seed, 5e-4, device)
    save_file(module.features.state_dict(), out_dir / "model.safetensors")
    return {"steps": TRUNK_STEPS, **accuracy(module)}
