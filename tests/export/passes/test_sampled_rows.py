import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.graph_runs import assert_same, lifted
from torch import Tensor, nn

from rap_edge.export.passes.sampled_rows import FEWEST_CHANNELS, sampled_rows


class Bent(nn.Module):
    """A map sampled somewhere, also beyond its edges."""

    grid: Tensor

    def __init__(self, grid: Tensor, **changes: object) -> None:
        super().__init__()
        self.register_buffer("grid", grid)
        self.options = {"mode": "bilinear", "padding_mode": "border", "align_corners": False} | changes

    def forward(self, picture: Tensor) -> Tensor:
        repeated = len(self.grid) // len(picture)
        return F.grid_sample(
            picture if repeated == 1 else picture.repeat_interleave(repeated, 0), self.grid, **self.options
        )


def somewhere(count: int) -> Tensor:
    return torch.randn(count, 3, 4, 2) * 0.9


@pytest.mark.parametrize(("pictures", "places"), [(1, 1), (1, 4), (3, 3)])
def test_a_wide_map_is_bent_by_rows_within_and_beyond_its_edges(pictures: int, places: int) -> None:
    module, picture = Bent(somewhere(places)), torch.randn(pictures, FEWEST_CHANNELS, 5, 7)
    model = lifted(module, picture)
    assert sampled_rows(model) == 1
    assert not {"GridSample", "Expand"} & {node.op_type for node in model.graph}
    assert_same(model, module, picture)


def test_places_on_the_last_row_and_column_are_those_themselves() -> None:
    corner = torch.tensor([1 - 1 / 7, 1 - 1 / 5]).view(1, 1, 1, 2)
    module, picture = Bent(corner), torch.randn(1, FEWEST_CHANNELS, 5, 7)
    model = lifted(module, picture)
    assert sampled_rows(model) == 1
    assert_same(model, module, picture)


@pytest.mark.parametrize("changes", [{"padding_mode": "zeros"}, {"mode": "nearest"}, {"align_corners": True}])
def test_other_samplings_are_left_alone(changes: dict[str, object]) -> None:
    assert sampled_rows(lifted(Bent(somewhere(1), **changes), torch.randn(1, FEWEST_CHANNELS, 5, 7))) == 0


@pytest.mark.parametrize(("pictures", "places"), [(1, 1), (1, 4), (3, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_bent_by_one_row_for_each_place(pictures: int, places: int, channels: int) -> None:
    module, picture = Bent(somewhere(places)), torch.randn(pictures, channels, 5, 7)
    model = lifted(module, picture)
    assert sampled_rows(model) == 1
    operators = [node.op_type for node in model.graph]
    assert not {"GridSample", "Expand"} & set(operators)
    assert sum(node.op_type == "Gather" and node.inputs[1].const_value is None for node in model.graph) == 1
    assert_same(model, module, picture)


def test_places_that_were_stacked_are_read_where_they_were() -> None:
    class Shifted(nn.Module):
        def forward(self, columns: Tensor) -> Tensor:
            grid = torch.stack((columns, columns * 0.5), dim=-1)
            picture = torch.arange(2.0 * 3 * 5 * 7).view(2, 3, 5, 7)
            return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)

    columns = torch.randn(2, 4, 6)
    model = lifted(Shifted(), columns)
    assert sampled_rows(model) == 1
    assert "Concat" not in {node.op_type for node in model.graph if node.attributes.get_int("axis", 0) == -1}
    assert_same(model, Shifted(), columns)
