"""Muon for matrices and convolutions, Adam for everything else, with state that is plain named tensors.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024): momentum, orthogonalised by
five Newton-Schulz steps. A convolution counts as the matrix [out, in * taps].
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix to `matrix` [rows, columns], approximately.

    In fp32: processors without bfloat16 instructions are ten times slower in bfloat16.
    """
    x = matrix.float()
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    a, b, c = _SCHULZ
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.T if tall else x
    return result


class Muon:
    """Steps the parameters of `model`: weights of two or more axes by Muon, the others by Adam.

    Args:
        model: its parameters that require gradients are trained.
        lr: step of the orthogonalised update.
        adam_lr: step of Adam.
        adam_names: substrings of parameter names that Adam takes although they are matrices.
        row_split: rows above which a weight is orthogonalised in separate pieces (keeps Newton-Schulz cheap).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 0.02,
        adam_lr: float = 2e-3,
        adam_names: tuple[str, ...] = (),
        row_split: int = 512,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        self.lr, self.adam_lr, self.momentum, self.weight_decay = lr, adam_lr, momentum, weight_decay
        self.row_split = row_split
        self.step_count = 0
        self.matrices: dict[str, nn.Parameter] = {}
        self.others: dict[str, nn.Parameter] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            matrix = parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) > 8
            if matrix and not any(part in name for part in adam_names):
                self.matrices[name] = parameter
            else:
                self.others[name] = parameter
        self.state: dict[str, Tensor] = {f"m/{n}": torch.zeros_like(p) for n, p in self.matrices.items()}
        for name, parameter in self.others.items():
            self.state[f"a/{name}"] = torch.zeros_like(parameter)
            self.state[f"v/{name}"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One update with both step sizes multiplied by `factor`; clears the gradients."""
        self.step_count += 1
        for name, parameter in self.matrices.items():
            if parameter.grad is None:
                continue
            momentum = self.state[f"m/{name}"].lerp_(parameter.grad, 1 - self.momentum)
            update = parameter.grad.lerp(momentum, self.momentum).flatten(1)
            rows, columns = update.shape
            pieces = max(1, -(-rows // self.row_split))
            parts = [orthogonalise(part) for part in update.chunk(pieces)]
            scale = max(1.0, rows / pieces / columns) ** 0.5
            if self.weight_decay:
                parameter.mul_(1 - self.lr * factor * self.weight_decay)
            parameter.add_(torch.cat(parts).to(parameter.dtype).view_as(parameter), alpha=-self.lr * factor * scale)
            parameter.grad = None
        for name, parameter in self.others.items():
            if parameter.grad is None:
                continue
            mean = self.state[f"a/{name}"].lerp_(parameter.grad, 0.1)
            square = self.state[f"v/{name}"].lerp_(parameter.grad.square(), 0.02)
            mean_hat = mean / (1 - 0.9**self.step_count)
            square_hat = square / (1 - 0.98**self.step_count)
            parameter.sub_(self.adam_lr * factor * mean_hat / (square_hat.sqrt() + 1e-8))
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, for safetensors."""
        return {**self.state, "step": torch.tensor([self.step_count])}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        self.step_count = int(tensors["step"][0])
        for name, value in self.state.items():
            value.copy_(tensors[name])
