"""
One file per pool library: where its check-outs and returns are hooked.
"""
