"""The model file as a graph: protobuf and its bounds, nodes and values, shapes, states, names of cuts."""
