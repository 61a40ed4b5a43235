"""A store in DuckDB's SQL and pandas: python examples/tables.py STORE"""

import sys

from logitstore import open_store

store = open_store(sys.argv[1])

# SQL over the store gives an Arrow table, and pandas takes that as it is
views = store.sql("SELECT clip, view, top1, top1_probability, entropy FROM views").to_pandas()
print(views.groupby("top1", observed=True)["entropy"].describe()[["count", "mean", "std"]].round(3))

# a question that ships with the tool, with a value for its parameter
print(store.sql("@uncertain_clips", {"limit": 3}).to_pandas())

# the other way round: a frame's columns as a query's parameters
least = views.groupby("clip")["top1_probability"].mean().nsmallest(3)
print(store.sql("SELECT clip, path FROM clips WHERE list_contains($clips, clip)", {"clips": least.index.tolist()}))

# everything of one view, as a row of probabilities by class
said = store.sql("SELECT clip, class, probability FROM topk WHERE view = 0").to_pandas()
print(said.pivot_table(index="clip", columns="class", values="probability", observed=True).round(2).head(3))
