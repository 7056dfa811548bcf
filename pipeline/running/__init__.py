"""Running the graph, node by node or whole, and what the metadata store knows of runs."""
