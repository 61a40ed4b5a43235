-- What was drawn for the views, and what could have been?
-- For every parameter of the recipe, in plain units: the lowest and highest value that was drawn beside those that the
-- recipe allows, mean and quartiles over all views, and the share of views that have none. Empty under a recipe without
-- ops.
SELECT
    op,
    column_name AS parameter,
    TRY_CAST(min AS DOUBLE) AS lowest,
    recipe.lowest AS allowed_from,
    TRY_CAST(q25 AS DOUBLE) AS q25,
    TRY_CAST(q50 AS DOUBLE) AS median,
    TRY_CAST(q75 AS DOUBLE) AS q75,
    TRY_CAST(max AS DOUBLE) AS highest,
    recipe.highest AS allowed_to,
    round(TRY_CAST(avg AS DOUBLE), 4) AS mean,
    null_percentage AS percent_none
FROM (SUMMARIZE SELECT * EXCLUDE (clip, entropy, top1, top1_probability) FROM views)
    JOIN recipe ON parameter = column_name
