-- How many clips does each view cover?
-- For every view, the clips that have targets, those that the clip table has beside them (failed, or of blocks
-- that are not finished), and in how many blocks the view lies.
WITH
    stored AS (SELECT view, count(*) AS clips FROM views GROUP BY view),
    held AS (
        SELECT number AS view, count(*) AS blocks
        FROM (SELECT unnest(range(view_start, view_stop)) AS number FROM blocks)
        GROUP BY number
    )
SELECT
    held.view,
    coalesce(stored.clips, 0) AS clips,
    (SELECT count(*) FROM clips) - coalesce(stored.clips, 0) AS without_targets,
    held.blocks
FROM held LEFT JOIN stored USING (view)
ORDER BY held.view
