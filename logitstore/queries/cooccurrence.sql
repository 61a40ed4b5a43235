-- Which classes are heard together?
-- Pairs of classes that are both likely in one clip: in how many clips, in how many each of the two is, and lift, how
-- many times more often than two classes would be that have nothing to do with each other. Ordered by the clips beyond
-- that number. A class and its parent in an ontology go together for certain.
-- $least = 0.1: the mean probability over a clip's views from which on a class counts as heard
-- $limit = 20: how many pairs to show
WITH
    heard AS (SELECT clip, class_index, class FROM answers WHERE probability >= $least),
    seen AS (SELECT count(*) AS clips FROM answers WHERE rank = 1),
    counts AS (SELECT class_index, count(*) AS clips FROM heard GROUP BY class_index),
    pairs AS (
        SELECT
            a.class_index,
            b.class_index AS other_index,
            any_value(a.class) AS class,
            any_value(b.class) AS other,
            count(*) AS clips
        FROM heard a JOIN heard b ON a.clip = b.clip AND a.class_index < b.class_index
        GROUP BY a.class_index, b.class_index
    )
SELECT
    class,
    other,
    pairs.clips,
    a.clips AS of_class,
    b.clips AS of_other,
    round(pairs.clips * (SELECT clips FROM seen) / (a.clips * b.clips), 2) AS lift
FROM pairs JOIN counts a USING (class_index) JOIN counts b ON b.class_index = other_index
ORDER BY pairs.clips - a.clips * b.clips / (SELECT clips FROM seen) DESC, class, other
LIMIT $limit
