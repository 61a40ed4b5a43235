-- How does each clip measure up?
-- One row a clip that has targets: answer, the class of the highest mean probability over its views, and that mean as
-- confidence (a class that is not in a view's top k counts 0 there); the mean entropy of its views and its spread,
-- highest less lowest (nats); how many classes come first in some view, and the share of views where the answer does;
-- view_disagreement, the Jensen-Shannon divergence of its views from each other (nats, of the stored classes).
WITH
    kind AS (SELECT bool_and(scores = 'sigmoid') AS sigmoid FROM teachers),
    said AS (
        SELECT
            clip,
            class_index,
            any_value(class) AS class,
            sum(probability::DOUBLE) AS total,
            -sum(probability * ln(probability)) AS yes,
            -sum((1.0 - probability) * ln(1.0 - probability)) AS no
        FROM topk
        GROUP BY clip, class_index
    ),
    seen AS (
        SELECT
            clip,
            count(*) AS views,
            avg(entropy) AS entropy,
            max(entropy) - min(entropy) AS spread,
            count(DISTINCT top1) AS answers
        FROM views
        GROUP BY clip
    ),
    judged AS (
        SELECT
            clip,
            arg_max(class, total - 1e-9 * class_index) AS answer,
            max(total) AS total,
            sum(yes) AS yes,
            sum(no) AS no,
            -sum(total / views * ln(total / views)) AS mean_yes,
            -sum((1.0 - total / views) * ln(1.0 - total / views)) AS mean_no
        FROM said JOIN seen USING (clip)
        GROUP BY clip
    ),
    kept AS (
        SELECT clip, count(*) AS kept
        FROM views JOIN judged USING (clip)
        WHERE top1 = answer
        GROUP BY clip
    )
SELECT
    clip,
    answer,
    round(total / views, 4) AS confidence,
    round(entropy, 4) AS entropy,
    round(spread, 4) AS spread,
    answers,
    round(coalesce(kept, 0) / views, 3) AS kept,
    round(greatest(0, mean_yes - yes / views + CASE WHEN sigmoid THEN mean_no - no / views ELSE 0 END), 4)
        AS view_disagreement
FROM judged JOIN seen USING (clip) LEFT JOIN kept USING (clip) CROSS JOIN kind
ORDER BY clip
