-- Which clips make a balanced subset, by their labels?
-- Up to so many clips of each label, of those that have targets, spread over the whole store in an order that is always
-- the same. A clip with several labels counts for each and is there once. As a file it is a subset to train on:
-- --out subset.parquet.
-- "$label" = label: the column of clips that holds labels: a text, several with a separator, or a list
-- $separator = ;: what separates the labels of a text
-- $clips = 10: how many clips of a label
WITH
    cells AS (
        SELECT
            clip,
            path,
            unnest(coalesce(TRY_CAST("$label"::VARCHAR AS VARCHAR[]), string_split("$label"::VARCHAR, $separator))) AS label
        FROM clips
    ),
    claims AS (
        SELECT DISTINCT clip, path, trim(label) AS label
        FROM cells
        WHERE trim(label) <> '' AND clip IN (SELECT clip FROM views)
    ),
    chosen AS (
        SELECT clip, path, label
        FROM claims
        QUALIFY row_number() OVER (PARTITION BY label ORDER BY md5(clip::VARCHAR), clip) <= $clips
    )
SELECT clip, any_value(path) AS path, string_agg(label, '; ' ORDER BY label) AS labels
FROM chosen
GROUP BY clip
ORDER BY min(label), clip
