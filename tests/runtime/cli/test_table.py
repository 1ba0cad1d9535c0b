from rap_edge.runtime.cli.table import columns


def test_every_column_is_as_wide_as_its_widest_cell_and_numbers_end_below_each_other() -> None:
    rows = [("graph", "size", "note"), ("dit", "1234.5 MB", "-"), ("conditioner", "9 MB", "late")]
    assert columns(rows, left=(0, 2)) == [
        "graph             size  note",
        "dit          1234.5 MB  -   ",
        "conditioner       9 MB  late",
    ]
