-- What of the answers does augmentation destroy, op by op?
-- The share of views that keep their clip's own answer, the class of the highest mean probability over its views: of all
-- views first, then by op and by how much it did, in four steps of the most that it can do, and where it did nothing. Of
-- a band it counts how much of the ear's (mel) scale is hidden. Other ops of the recipe act beside it, so compare the
-- steps of an op with each other. Of few views the answer is not worth much: a single one keeps its own.
WITH
    said AS (
        SELECT clip, view, (top1 = class)::INT AS kept FROM views JOIN answers USING (clip) WHERE answers.rank = 1
    ),
    steps AS (
        SELECT 'all views' AS op, NULL AS unit, NULL AS step, NULL AS amount, kept
        FROM said
        UNION ALL
        SELECT op, unit, CASE WHEN amount > 0 THEN least(3, floor(4 * amount / most)) ELSE -1 END, amount, kept
        FROM ops JOIN said USING (clip, view)
    )
SELECT
    op,
    CASE WHEN step < 0 THEN 'did not act' WHEN step IS NOT NULL THEN 'acted' END AS acted,
    round(min(amount), 3) AS at_least,
    round(max(amount), 3) AS at_most,
    unit,
    count(*) AS views,
    round(avg(kept), 4) AS kept
FROM steps
GROUP BY op, unit, step
ORDER BY op <> 'all views', op, step
