from sesurgery.tables import aligned

ROWS = [("name", "count", "note"), ("a", "1", "x"), ("longer", "1000", "")]


def test_the_first_column_is_set_to_the_left_and_the_others_to_the_right():
    assert aligned(ROWS) == ["name    count  note", "a           1     x", "longer   1000"]


def test_which_columns_are_set_to_the_left_can_be_said():
    assert aligned(ROWS, left=(0, 2)) == ["name    count  note", "a           1  x", "longer   1000"]


def test_a_table_without_rows_has_no_lines():
    assert aligned([]) == []
