-- Which clips make a balanced subset, by what the teachers hear?
-- Up to so many clips of each class, of those where it is the likeliest by the mean probability over the views, the
-- surest first. Classes with few clips give what they have. As a file it is a subset to train on: --out subset.parquet.
-- $clips = 10: how many clips of a class
-- $least = 0.0: the mean probability that the class must have
WITH
    totals AS (
        SELECT clip, class_index, any_value(class) AS class, sum(probability::DOUBLE) AS total
        FROM topk
        GROUP BY clip, class_index
    ),
    seen AS (SELECT clip, count(*) AS views FROM views GROUP BY clip),
    answers AS (
        SELECT clip, arg_max(class, total - 1e-9 * class_index) AS class, max(total / views) AS probability
        FROM totals JOIN seen USING (clip)
        GROUP BY clip
    )
SELECT clip, path, class, round(probability, 4) AS probability
FROM answers JOIN clips USING (clip)
WHERE answers.probability >= $least
QUALIFY row_number() OVER (PARTITION BY class ORDER BY answers.probability DESC, clip) <= $clips
ORDER BY class, answers.probability DESC, clip
