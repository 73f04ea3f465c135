"""How good a fusion is: the published tables' metrics, metrics that are harder to please, and video's own."""
