"""The page of a run: may it serve, why, where is it weak, what changed, is the data healthy."""

REPORT_TYPE = "recsys.RunReport"  # the metadata store's name of its artifact, for readers that do without TFX
