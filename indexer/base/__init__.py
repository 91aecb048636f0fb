"""What every room stands on: shared types, the exception tree, durable writes, the writer lock, failpoints, clocks."""
