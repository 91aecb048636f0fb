"""The only place that speaks SQL: schema, migrations, transactions, queries that hand out typed rows."""
