"""What every other package uses: shared types, exceptions, durable writes, the writer lock, failpoints, profiling."""
