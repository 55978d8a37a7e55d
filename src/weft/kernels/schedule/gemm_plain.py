"""Matrix products of the other dtypes, one element at a time: integers wrap, half floats accumulate in float32."""
def plan_plain(a,b,out): raise NotImplementedError
