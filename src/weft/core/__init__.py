"""What a tensor program is: dtypes, types, ops and their kinds, the graph, the loop language."""
