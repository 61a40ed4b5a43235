-- How many hours are there of each class?
-- Clips and hours whose likeliest class it is, by the mean probability over their views; heard, the clips in which its
-- mean probability is $least or more, and their hours; and expected_hours, hours times that mean, summed over all clips.
-- A clip counts with its own length, without padding.
-- $least = 0.5: the mean probability from which on a class counts as heard in a clip
-- $limit = 20: how many classes to show, the most hours first
WITH
    lengths AS (SELECT clip, length / rate / 3600 AS hours FROM clips WHERE rate > 0)
SELECT
    any_value(class) AS class,
    count(*) FILTER (WHERE rank = 1) AS clips,
    round(coalesce(sum(hours) FILTER (WHERE rank = 1), 0), 4) AS hours,
    count(*) FILTER (WHERE probability >= $least) AS heard,
    round(coalesce(sum(hours) FILTER (WHERE probability >= $least), 0), 4) AS hours_heard,
    round(sum(hours * probability), 4) AS expected_hours
FROM answers JOIN lengths USING (clip)
GROUP BY class_index
ORDER BY hours DESC, expected_hours DESC, class
LIMIT $limit
