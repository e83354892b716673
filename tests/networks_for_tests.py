"""Small networks with data, in float64, and their exact Hessians by torch.func."""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from howsparse.risk.weights import prunable_weights

Batches = list[tuple[Tensor, Tensor]]


def mlp_case(seed: int = 0, examples: int = 40) -> tuple[nn.Module, Batches]:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    inputs = torch.randn(examples, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (examples,), generator=generator)
    return model, list(zip(inputs.split(16), targets.split(16), strict=True))


def convnet_case(seed: int = 0) -> tuple[nn.Module, Batches]:
    """Convolutions with BatchNorm, whose running statistics are not those of the data, and dropout."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3),
        ).double()  # fmt: skip
        model.get_buffer("1.running_mean").normal_()
    inputs = torch.randn(20, 1, 4, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (20,), generator=generator)
    return model, list(zip(inputs.split(8), targets.split(8), strict=True))


def exact_curvature(
    model: nn.Module, batches: Batches, kind: str = "hessian", names: list[str] | None = None
) -> Tensor:
    """Dense Hessian or Gauss-Newton matrix of the mean loss, ``(D, D)``, in evaluation mode.

    It is by the weights of these names; by default by the prunable ones.
    """
    was = model.training
    model.eval()
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    fixed = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    studied = prunable_weights(model) if names is None else {name: model.get_parameter(name) for name in names}
    shapes = {name: w.shape for name, w in studied.items()}
    at = torch.cat([w.detach().flatten() for w in studied.values()])

    def output(flat: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes.values()])
        swapped = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        result: Tensor = torch.func.functional_call(model, fixed | swapped, (inputs,))
        return result

    def loss(z: Tensor) -> Tensor:
        return nn.functional.cross_entropy(z, targets)

    def risk(flat: Tensor) -> Tensor:
        return loss(output(flat))

    if kind == "hessian":
        with sdpa_kernel(SDPBackend.MATH):
            dense: Tensor = torch.func.jacrev(torch.func.grad(risk))(at)
    else:
        z = output(at)
        jacobian = torch.func.jacrev(output)(at).reshape(z.numel(), -1)
        outer = torch.func.hessian(loss)(z).reshape(z.numel(), z.numel())
        dense = jacobian.T @ outer @ jacobian
    model.train(was)
    return dense


class Joined(nn.Module):
    """Concatenated branches, a residual sum, a depthwise convolution, pooling and flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.depthwise = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.three, self.last = nn.Conv2d(16, 8, 1), nn.Linear(8 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        first = self.one(x).relu()
        y = self.norm(torch.cat([first, self.two(first).relu()], 1)).relu()
        y = (self.three(self.depthwise(y)) + first).relu()
        out: Tensor = self.last(nn.functional.max_pool2d(y, 3).flatten(1))
        return out
