"""Downloads of datasets: sources, transfer, verification and unpacking."""
