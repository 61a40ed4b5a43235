-- How does each clip measure up?
-- One row a clip that has targets: answer, the class of the highest mean probability over its views, and that mean as
-- confidence (a class that is not in a view's top k counts 0 there, or what stands for it in a store with a quality);
-- the mean entropy of its views and its spread, highest less lowest (nats); how many classes come first in some view, and
-- the share of views where the answer does; view_disagreement, the Jensen-Shannon divergence of its views from each other
-- (nats, of the stored classes).
WITH
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
            any_value(class) FILTER (WHERE rank = 1) AS answer,
            max(probability) AS confidence,
            sum(disagreement) AS apart
        FROM answers
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
    round(confidence, 4) AS confidence,
    round(entropy, 4) AS entropy,
    round(spread, 4) AS spread,
    answers,
    round(coalesce(kept, 0) / views, 3) AS kept,
    round(apart, 4) AS view_disagreement
FROM judged JOIN seen USING (clip) LEFT JOIN kept USING (clip)
ORDER BY clip
