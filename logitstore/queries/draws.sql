-- What was drawn for the views?
-- For every parameter of the recipe, in plain units: its range, mean and quartiles over all views, and the share
-- of views that have none. Empty under a recipe without ops.
SELECT
    column_name AS parameter,
    TRY_CAST(min AS DOUBLE) AS lowest,
    TRY_CAST(q25 AS DOUBLE) AS q25,
    TRY_CAST(q50 AS DOUBLE) AS median,
    TRY_CAST(q75 AS DOUBLE) AS q75,
    TRY_CAST(max AS DOUBLE) AS highest,
    round(TRY_CAST(avg AS DOUBLE), 4) AS mean,
    null_percentage AS percent_none
FROM (SUMMARIZE SELECT * EXCLUDE (clip, entropy, top1, top1_probability) FROM views)
WHERE column_name <> 'view'
