-- How many hours are there of each class?
-- Clips and hours whose likeliest class it is, by the mean probability over their views; heard, the clips in which its
-- mean probability is $least or more, and their hours; and expected_hours, hours times that mean, summed over all clips.
-- A clip counts with its own length, without padding.
-- $least = 0.5: the mean probability from which on a class counts as heard in a clip
-- $limit = 20: how many classes to show, the most hours first
WITH
    lengths AS (SELECT clip, length / rate / 3600 AS hours FROM clips WHERE rate > 0),
    seen AS (SELECT clip, count(*) AS views FROM views GROUP BY clip),
    totals AS (
        SELECT clip, class_index, any_value(class) AS class, sum(probability::DOUBLE) AS total
        FROM topk
        GROUP BY clip, class_index
    ),
    answers AS (SELECT clip, arg_max(class_index, total - 1e-9 * class_index) AS answer FROM totals GROUP BY clip)
SELECT
    any_value(class) AS class,
    count(*) FILTER (WHERE class_index = answer) AS clips,
    round(coalesce(sum(hours) FILTER (WHERE class_index = answer), 0), 4) AS hours,
    count(*) FILTER (WHERE total / views >= $least) AS heard,
    round(coalesce(sum(hours) FILTER (WHERE total / views >= $least), 0), 4) AS hours_heard,
    round(sum(hours * total / views), 4) AS expected_hours
FROM totals JOIN seen USING (clip) JOIN answers USING (clip) JOIN lengths USING (clip)
GROUP BY class_index
ORDER BY hours DESC, expected_hours DESC, class
LIMIT $limit
