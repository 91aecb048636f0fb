"""Every column has a rule, and the rule lets nothing be empty that the schema does not."""

from __future__ import annotations

from indexer.catalog.columns import RULES
from indexer.catalog.schema import metadata


def test_every_column_of_every_table_has_a_rule() -> None:
    declared = {table.name: [column.name for column in table.columns] for table in metadata.sorted_tables}
    assert {name: list(rules) for name, rules in RULES.items() if name != "sqlite_sequence"} == declared


def test_what_may_be_empty_is_what_the_schema_says() -> None:
    for table in metadata.sorted_tables:
        for column in table.columns:
            assert RULES[table.name][column.name].optional == bool(column.nullable), f"{table.name}.{column.name}"
