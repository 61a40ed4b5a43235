-- What of the answers does augmentation destroy, op by op?
-- The share of views that keep their clip's own answer, the class of the highest mean probability over its views: of all
-- views first, then by op and by how strongly it acted, in four steps of equal width between the least and the most that
-- was drawn (of a mask or band, its extent), and where it did not act. Other ops of the recipe act beside it, so
-- compare the steps of an op with each other. Of few views the answer is not worth much: a single one keeps its own.
WITH
    totals AS (
        SELECT clip, class_index, any_value(class) AS class, sum(probability::DOUBLE) AS total
        FROM topk
        GROUP BY clip, class_index
    ),
    answers AS (SELECT clip, arg_max(class, total - 1e-9 * class_index) AS answer FROM totals GROUP BY clip),
    drawn AS (
        SELECT
            clip,
            view,
            (top1 = answer)::INT AS kept,
            TRY_CAST(COLUMNS(* EXCLUDE (clip, view, entropy, top1, top1_probability, answer)) AS DOUBLE),
            0.0::DOUBLE AS "all views"
        FROM views JOIN answers USING (clip)
    ),
    long AS (
        SELECT clip, view, kept, parameter, value
        FROM drawn UNPIVOT INCLUDE NULLS (value FOR parameter IN (COLUMNS(* EXCLUDE (clip, view, kept))))
    ),
    acted AS (
        SELECT
            regexp_replace(parameter, '_(start|end|low|high)_', '_') AS strength,
            any_value(parameter) AS parameter,
            any_value(kept) AS kept,
            nullif(CASE WHEN count(*) > 1 THEN max(value) - min(value) ELSE max(value) END, 0) AS value
        FROM long
        WHERE NOT regexp_matches(parameter, '_(step|clip|key)$')
        GROUP BY clip, view, strength
    ),
    ranges AS (
        SELECT strength, min(value) AS lowest, greatest(max(value) - min(value), 1e-9) AS width
        FROM acted
        GROUP BY strength
    ),
    steps AS (
        SELECT acted.*, CASE WHEN value IS NOT NULL THEN least(3, floor(4 * (value - lowest) / width)) END AS step
        FROM acted JOIN ranges USING (strength)
    )
SELECT
    coalesce(op, 'all views') AS op,
    CASE WHEN op IS NULL THEN NULL ELSE strength END AS strength,
    CASE WHEN op IS NULL THEN NULL WHEN step IS NULL THEN 'did not act' ELSE 'acted' END AS acted,
    round(min(value), 2) AS at_least,
    round(max(value), 2) AS at_most,
    count(*) AS views,
    round(avg(kept), 4) AS kept
FROM steps LEFT JOIN recipe USING (parameter)
GROUP BY op, strength, step
ORDER BY op IS NOT NULL, op, strength, step NULLS FIRST
